"""The golden quantised weights: made by ``python -m golden.quantised`` from tests/.

Each library packs a weight of its own and says what it is when it is dequantised. Needs torch,
transformers, bitsandbytes, compressed-tensors (with loguru), torchao and autoawq, of which only the
file of one function is used; the versions are in `LIBRARIES`. The tests need none of them.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).parent / "quantised.safetensors"
EXPECTED = Path(__file__).parent / "quantised.npz"
TORCHAO = Path(__file__).parent
LIBRARIES = (
    "bitsandbytes 0.50.2, compressed-tensors 0.20.0, transformers 5.23.0, autoawq 0.2.9, "
    "torchao 0.18.0"
)
SHAPE = (16, 64)


def bitsandbytes_weights() -> dict[str, tuple[dict[str, Any], Any]]:
    """4 bits of both tables, scales nested and not; 8 bits."""
    import bitsandbytes.functional as bnb
    import torch

    made: dict[str, tuple[dict[str, Any], Any]] = {}
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            # The CPU kernel of this version needs rows of whole blocks.
            W = torch.randn(SHAPE)
            codes, state = bnb.quantize_4bit(
                W, blocksize=64, compress_statistics=nested, quant_type=kind
            )
            tensors = {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}
            name = f"bitsandbytes_{kind}{'_nested' if nested else ''}"
            made[name] = {"weight": codes, **tensors}, bnb.dequantize_4bit(codes, state)
    rows, largest, _ = bnb.int8_vectorwise_quant(torch.randn(SHAPE).half())
    tensors = {"weight": rows, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    made["bitsandbytes_int8"] = tensors, bnb.int8_vectorwise_dequant(rows, largest)
    return made


def compressed_tensors_weights() -> dict[str, tuple[dict[str, Any], Any]]:
    """Integers of 2, 4, 8 bits, floats of 4 and 8."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    made: dict[str, tuple[dict[str, Any], Any]] = {}
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "int4": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16}),
        "int4_zeros": (
            "pack-quantized",
            {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False},
        ),
        "int2": ("pack-quantized", {"num_bits": 2, "strategy": "channel"}),
        "int8_zeros": (
            "int-quantized",
            {"num_bits": 8, "strategy": "channel", "symmetric": False},
        ),
        "fp8": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    }
    for name, (format, arguments) in cases.items():
        args = QuantizationArgs(**arguments)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        W = torch.randn(SHAPE)
        grouped = W.reshape(SHAPE[0], -1, args.group_size or SHAPE[1])
        scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
        tensors = {"weight": W, "weight_scale": scale, "weight_zero_point": zero}
        compressor = BaseCompressor.get_value_from_registry(format)
        packed = compressor.compress(tensors, scheme)
        made[name] = dict(packed), compressor.decompress(dict(packed), scheme)["weight"]
    return made


def four_bit_floats() -> dict[str, tuple[dict[str, Any], Any]]:
    """NVFP4 and MXFP4 of compressed-tensors, MXFP4 of gpt-oss, blocks of DeepSeek's fp8."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES, QuantizationScheme
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    made: dict[str, tuple[dict[str, Any], Any]] = {}
    octets = torch.randint(0, 256, (SHAPE[0], SHAPE[1] // 2), dtype=torch.uint8)
    scheme = QuantizationScheme(targets=["Linear"], **PRESET_SCHEMES["NVFP4A16"])
    scales = (torch.rand(SHAPE[0], SHAPE[1] // 16) * 100).to(torch.float8_e4m3fn)
    tensors = {
        "weight_packed": octets,
        "weight_scale": scales,
        "weight_global_scale": torch.tensor([37.5]),
    }
    nvfp4 = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized")
    made["nvfp4"] = tensors, nvfp4.decompress(dict(tensors), scheme)["weight"]

    blocks = torch.randint(0, 256, (3, 8, 2, 16), dtype=torch.uint8)
    exponents = torch.randint(115, 130, (3, 8, 2), dtype=torch.uint8)
    unpacked = convert_moe_packed_tensors(blocks.clone(), exponents.clone())
    made["experts.up_proj"] = {"_blocks": blocks, "_scales": exponents}, unpacked

    W = torch.randn(256, 128).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 1)
    exact = Fp8Dequantize.__new__(Fp8Dequantize)._dequantize_one(W, scales)
    made["fp8_blocks"] = {"weight": W, "weight_scale_inv": scales}, exact
    return made


def awq_weights() -> dict[str, tuple[dict[str, Any], Any]]:
    """Any words, which AutoAWQ unpacks."""
    import torch

    package = importlib.util.find_spec("awq")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "utils" / "packing_utils.py"
    spec = importlib.util.spec_from_file_location("packing_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows, columns, group = *SHAPE, 32
    tensors = {
        "qweight": torch.randint(-(2**31), 2**31 - 1, (columns, rows // 8), dtype=torch.int32),
        "qzeros": torch.randint(-(2**31), 2**31 - 1, (columns // group, rows // 8)).int(),
        "scales": torch.rand(columns // group, rows).half(),
    }
    scales = tensors["scales"].float()
    W = module.dequantize_gemm(tensors["qweight"], tensors["qzeros"], scales, 4, group)
    return {"awq": (tensors, W.T)}


def torchao_model() -> Any:
    """A model whose weights are of torchao's classes."""
    import torch
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
        quantize_,
    )

    configs = {
        "int8": Int8WeightOnlyConfig(),
        "fp8": Float8WeightOnlyConfig(),
        "int4": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
    }
    layers = {name: torch.nn.Linear(SHAPE[1], SHAPE[0], bias=False) for name in configs}
    model = torch.nn.ModuleDict(layers)
    for name, config in configs.items():
        quantize_(model[name], config)
    return model


def main() -> None:
    """Write the files."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    made = {
        **bitsandbytes_weights(), **compressed_tensors_weights(), **four_bit_floats(),
        **awq_weights(),
    }  # fmt: skip
    tensors, expected = {}, {}
    for name, (own, W) in made.items():
        for ending, tensor in own.items():
            dot = "" if ending.startswith("_") else "."
            tensors[f"{name}{dot}{ending}"] = tensor.contiguous()
        expected[name] = W.float().numpy()
    save_file(tensors, PATH, {"made with": LIBRARIES})
    np.savez_compressed(EXPECTED, **expected)

    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    model = torchao_model()
    torch.save(model.state_dict(), TORCHAO / "torchao.pt")
    flat, note = flatten_tensor_state_dict(model.state_dict())
    save_file(flat, TORCHAO / "torchao.safetensors", note)
    whole = {name: layer.weight.dequantize().numpy() for name, layer in model.items()}
    np.savez_compressed(TORCHAO / "torchao.npz", **whole)


if __name__ == "__main__":
    main()
