"""What a training step of a plan would cost on another machine, worked out on paper."""

TOKENS = 12.3  # a text of all-nli, special tokens included, as BERT's tokenizer cuts it
BERT_BASE = {"layers": 12, "width": 768, "parameters": 110e6}
MINILM = {"layers": 6, "width": 384, "parameters": 22.7e6}


def step_flops(layers: int, width: int, batch_size: int, passes: int = 1) -> float:
    """Floating point operations of one training step on triplets, worked out on paper.

    Two a weight and token forward, four backward; a layer has 12 width^2 weights. Left out: attention's products over
    pairs of tokens (texts are short), the embedding layer, the loss and the optimizer. Of the forward passes one is
    kept for backward.
    """
    return (2 * passes + 4) * 12 * width**2 * layers * 3 * batch_size * TOKENS


def step_bytes(layers: int, width: int, batch_size: int, parameters: float, passes: int = 1) -> float:
    """Memory of one training step in mixed precision, worked out on paper: an upper estimate.

    16 bytes a parameter (weight, gradient and AdamW's two moments in float32) and 34 numbers of 2 bytes a width, token
    and layer kept for backward (Korthikanti et al. 2022, 2205.05198, eq. 1 without the attention maps), every pass.
    """
    return 16 * parameters + 34 * width * layers * 3 * batch_size * TOKENS * passes
