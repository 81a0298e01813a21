"""Run by the clients' own Python: readers.py FOLDER, texts as JSON on stdin, the vectors of every reader on stdout.

The code is that of the card in the folder, so that what the card says is what is tried.
"""

import json
import re
import sys
from pathlib import Path

import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

folder, texts = sys.argv[1], json.load(sys.stdin)
card = Path(folder, "README.md").read_text()
found = {}
for name, block in zip(
    ("sentence-transformers", "fastembed"), re.findall(r"```py\n(.*?)```", card, re.DOTALL), strict=True
):
    names = {"folder": folder, "texts": texts}
    exec(re.sub(r'\(\["The shop.*?\]\)', "(texts)", block), names)
    found[name] = [vector.tolist() for vector in names["vectors"]]
quantised = SentenceTransformer(folder, backend="onnx", model_kwargs={"file_name": "onnx/model_quantized.onnx"})
found["sentence-transformers, 8 bits"] = quantised.encode(texts).tolist()
tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
hidden = ORTModelForFeatureExtraction.from_pretrained(folder)(**tokens).last_hidden_state  # (n, T, d)
mask = tokens["attention_mask"].unsqueeze(-1)  # (n, T, 1)
found["optimum"] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).tolist()
json.dump(found, sys.stdout)
