"""A frozen teacher beside a SentenceTransformer: its vectors of texts of which only the tokens are known."""

import copy
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from twodmse.encoder.hub import resolve


class Teacher(nn.Module):
    """A frozen SentenceTransformer that reads what another one's tokenizer has made of the texts.

    With the same vocabulary, and room for texts as long, it reads the very same tokens; else the tokens are turned back
    into text for it, as GISTEmbedLoss does for its guide.

    Args:
        teacher: a SentenceTransformer, or the name of one: ``bundled``, a folder or a hub id. Its weights are frozen;
            of ``student`` itself a copy is taken.
        student: the model that is trained.
    """

    def __init__(self, teacher: SentenceTransformer | str, student: SentenceTransformer) -> None:
        super().__init__()
        if not isinstance(teacher, SentenceTransformer):
            read = SentenceTransformer(str(resolve(teacher)), device=str(student.device))
        else:
            read = copy.deepcopy(student) if teacher is student else teacher
        if read.truncate_dim is not None:
            raise ValueError(f"the teacher keeps {read.truncate_dim} of its dims: set its truncate_dim to None")
        self.encoder = read.requires_grad_(False)
        self.tokenizer = student.tokenizer
        same_vocabulary = read.tokenizer.get_vocab() == student.tokenizer.get_vocab()
        prompt = read.prompts.get(read.default_prompt_name)  # which the student's tokens lack
        self.reads_tokens = same_vocabulary and not prompt and read.max_seq_length >= student.max_seq_length

    @property
    def dim(self) -> int:
        """E, the width of its vectors."""
        ask = getattr(self.encoder, "get_embedding_dimension", None) or self.encoder.get_sentence_embedding_dimension
        return ask()

    def forward(self, features: dict[str, Any]) -> Tensor:
        """Its vectors (B, E) of texts whose tokens are ``input_ids`` and ``attention_mask``, both (B, T)."""
        self.encoder.eval()
        if self.reads_tokens:
            with torch.no_grad():
                return self.encoder(dict(features))["sentence_embedding"].float()
        rows = zip(features["input_ids"], features["attention_mask"].bool(), strict=True)
        words = [ids[mask] for ids, mask in rows]  # without padding, which may be the id of a word
        texts = self.tokenizer.batch_decode(words, skip_special_tokens=True)
        vectors = self.encoder.encode(texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)
        return vectors.float().clone()  # a copy: what inference mode made cannot take part in a gradient
