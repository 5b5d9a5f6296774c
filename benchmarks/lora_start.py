"""Does LoRA learn more from where it starts? Fashion-MNIST; table of compression.md.

    python benchmarks/lora_start.py [--seeds 3]

The network of layer_rules.py, trained on upright images, is adapted to 300 images that are turned
by 90 degrees: LoRA of rank 8 on the layers of its blocks, and the head, with the start of LoRA, of
PiSSA and of OLoRA (`finetune.init_lora`). Every arm has five learning rates, of which the one with
the best mean on 5 000 other images counts; the table has the accuracy on the test set.
"""

import argparse
import copy
import warnings

import torch
from layer_rules import BATCH, DECAY, STEPS, Net, accuracy, load, mean, spread, train, turned

from pyspectra.finetune import init_lora

STARTS = ("LoRA", "pissa", "olora")
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
RANK, EPOCHS = 8, 4


def tuned(start, lr, model, small, val, test, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["up", "down"],
                             modules_to_save=["head"])  # fmt: skip
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    if start != "LoRA":
        init_lora(adapted, start)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    train(adapted, torch.optim.AdamW(trained, lr=lr, weight_decay=0.0), *small, STEPS, seed)
    return accuracy(adapted, *val), accuracy(adapted, *test)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    x, y = load("train")
    a, b = load("t10k")
    val, test = (turned(x[55000:]), y[55000:]), (turned(a), b)
    found = {(start, lr): [] for start in STARTS for lr in RATES}
    for seed in seeds:
        model = Net(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=DECAY)
        train(model, optimizer, x[:10000], y[:10000], EPOCHS * 10000 // BATCH, seed)
        some = 20000 + torch.randperm(30000, generator=torch.Generator().manual_seed(seed))[:300]
        small = turned(x[some]), y[some]
        for (start, lr), rows in found.items():
            rows.append(tuned(start, lr, model, small, val, test, seed))
    print("| start | lr | test accuracy, % | against LoRA, points |")
    print("|---|---|---|---|")
    tests = {}
    for start in STARTS:
        best = max(RATES, key=lambda lr, start=start: mean([v for v, _ in found[start, lr]]))
        tests[start] = [100 * t for _, t in found[start, best]]
        gains = [t - plain for t, plain in zip(tests[start], tests["LoRA"], strict=True)]
        against = "" if start == "LoRA" else f"{mean(gains):+.2f} ± {spread(gains):.2f}"
        print(f"| {start} | {best:g} | {mean(tests[start]):.2f} ± {spread(tests[start]):.2f} "
              f"| {against} |")  # fmt: skip
    for start in STARTS:
        rows = " ".join(f"{100 * mean([t for _, t in found[start, lr]]):.1f}" for lr in RATES)
        print(f"{start} at {RATES}: {rows}")


if __name__ == "__main__":
    main()
