"""Every device kernel once, on little data: what compute-sanitizer is to look at."""

from __future__ import annotations

import torch

import pyspectra as ps
from pyspectra._cuda import eigenvalues
from pyspectra.optim import SGD, ChildAdamW

for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
    params = [torch.nn.Parameter(torch.randn(n, device="cuda").to(dtype)) for n in (5, 4096, 9001)]
    options = {"ema_decay": 0.9, "max_grad_norm": 0.3, "statistics": True}
    mask = {p: torch.rand(p.shape, device="cuda") < 0.3 for p in params[:2]}
    child = {"mode": "D", "mask": mask, "compact": True}
    for opt in (
        ChildAdamW(params, mode="F", stochastic_rounding=True, **options),
        ChildAdamW(params, stochastic_rounding=True, **child, **options),
        ChildAdamW(params, decay_masked=False, **child),
        ChildAdamW(params, master_weights=True),
        SGD(params, momentum=0.9),
    ):
        for p in params:
            p.grad = torch.randn_like(p)
        opt.step()
spectra = [torch.rand(n, device="cuda") ** -0.5 for n in (3, 15, 300, 2500)]
print([fit.alpha for fit in ps.fit_powerlaw_batch(spectra)])
print([fit.ci for fit in ps.fit_powerlaw_batch(spectra, bootstrap=4, seed=1)])
for n in (1, 33, 150):
    x = torch.randn((2, n, n), device="cuda")
    print(eigenvalues.eigvals(x + x.mT, method="one_block")[0][0][-1])
    print(eigenvalues.eigvals(x + x.mT, method="two_stage")[0][0][-1])
print(ps.esd(torch.randn(60, 40, device="cuda"), method="svd").evals[0])
print(ps.analyze({"a.weight": torch.randn(60, 40)}, device="cuda").layers[0].alpha)
torch.cuda.synchronize()
