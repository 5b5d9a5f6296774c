"""A LoRA that was trained: what tests of intruder dimensions compare with PEFT on."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import real_models
import torch


@functools.cache
def minilm_with_lora() -> Any:
    """MiniLM with a LoRA on its attention, trained hard for a few steps; not to be changed."""
    peft = pytest.importorskip("peft", reason="PEFT is what this compares with")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.AutoModel.from_pretrained(real_models.minilm_dir(), local_files_only=True)
    config = peft.LoraConfig(
        r=8, lora_alpha=32, target_modules=["query", "value"], lora_dropout=0.0
    )
    with warnings.catch_warnings():  # one library calls what the other has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    tokens = torch.randint(1000, 20000, (2, 8))
    target = torch.randn(2, 8, 384)
    for _ in range(12):
        loss = (model(input_ids=tokens).last_hidden_state - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
