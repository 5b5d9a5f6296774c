"""Write the golden file of GGUF, and what is in it: ``python make_gguf.py`` with gguf 0.19."""

from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).parent
TYPES = gguf.GGMLQuantizationType
# By what quantises here, and what only llama.cpp does: blocks of any bytes with tame scales.
QUANTISED = {"attn_q": TYPES.Q8_0, "attn_k": TYPES.Q4_0, "attn_v": TYPES.Q5_1,
             "ffn_up": TYPES.MXFP4, "ffn_down": TYPES.TQ2_0}  # fmt: skip


def main() -> None:
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(FOLDER / "small.gguf", "llama")
    writer.add_block_count(1)
    writer.add_token_list([f"token {i}" for i in range(12)])
    writer.add_token_scores([0.5] * 12)
    writer.add_tensor("token_embd.weight", rng.standard_normal((12, 64)).astype(np.float16))
    for name, kind in QUANTISED.items():
        columns = 256 if kind == TYPES.TQ2_0 else 64
        weight = rng.standard_normal((24, columns)).astype(np.float32)
        writer.add_tensor(f"blk.0.{name}.weight", gguf.quants.quantize(weight, kind),
                          raw_dtype=kind)  # fmt: skip
    experts = rng.standard_normal((3, 8, 64)).astype(np.float32)
    writer.add_tensor("blk.0.ffn_gate_exps.weight", gguf.quants.quantize(experts, TYPES.Q8_0),
                      raw_dtype=TYPES.Q8_0)  # fmt: skip
    six = rng.integers(0, 256, (10, 210), np.uint8)  # Q6_K: 256 numbers in 210 bytes
    six[:, 208:] = np.full((10, 1), 0.01, np.float16).view(np.uint8)
    writer.add_tensor("output.weight", six, raw_dtype=TYPES.Q6_K)
    writer.add_tensor("blk.0.attn_output.weight", rng.standard_normal((9, 64)))
    half = rng.standard_normal((7, 64)).astype(np.float32)
    writer.add_tensor("blk.0.attn_gate.weight", gguf.quants.quantize(half, TYPES.BF16),
                      raw_dtype=TYPES.BF16)  # fmt: skip
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, np.float32))
    writer.add_tensor("blk.0.attn_q.bias", np.ones(24, np.float32))
    writer.add_tensor("counts", np.arange(6, dtype=np.int32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
