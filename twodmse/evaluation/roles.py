"""Prompts by what a text is for in a search: a query, or a document that is looked for."""

from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import prompt_of

# Names of prompts, in the order in which encode_query and encode_document of sentence-transformers look for them.
QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")


def prompt_for(encoder: Encoder, names: tuple[str, ...]) -> str:
    """The first of the model's own prompts of these names; its default one where it has none of them.

    Args:
        encoder: the encoder.
        names: `QUERY` or `DOCUMENT`.

    Raises:
        ValueError: for a prompt that is not pooled: a forward pass that pauses does not know which tokens it has.
    """
    name = next((name for name in names if name in encoder.layout.prompts), None)
    prompt = prompt_of(encoder.layout, None, name)
    if prompt and not encoder.layout.include_prompt:
        raise ValueError(
            f"this model pools without its prompt {name!r} (include_prompt=False), which a cascade cannot: search with "
            "the vectors of encode(prompt_name=...) instead"
        )
    return prompt
