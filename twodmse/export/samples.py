"""What an export is checked with: sample texts, and how far two readers' vectors may be apart."""

import numpy as np

from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import is_visible

TOLERANCE = {"safetensors": 1e-5, "onnx": 1e-4}  # largest difference of a coordinate: rounding in float32
MOST_TOKENS = 1024  # of a sample text: models that read far more would take minutes
SAMPLES = (
    "Why?",
    "A man plays the guitar.",
    "Nobody is playing anything.",
    "The train was late again, so they walked.",
    "Shares fell by 3.5% on Monday, traders said; the bank's were not among them.",
    "HOW MUCH IS IT? 12 or 20 (with tax)?",
    "Der Zug hält heute nicht in Köln.",
    "She put the kettle on, opened the window, and listened to the rain until the water boiled.",
    "Water boils at a lower temperature on a mountain because the air presses less on it there.",
    " ".join(
        ["The river rose all night, and in the morning the bridge was closed to everything but people on foot."] * 4
    ),
    "the cat sat on the mat and " * 200,  # longer than encoders commonly read: it is cut
)


def sample_texts(encoder: Encoder) -> list[str]:
    """`SAMPLES`, then texts of the encoder's own vocabulary, whatever its language, the last longer than it reads."""
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids)
    ids = [i for i in np.random.default_rng(0).permutation(len(tokenizer)) if i not in special]
    lengths = (1, 3, 10, 30, 2 * min(encoder.max_length, MOST_TOKENS))
    own = [tokenizer.decode(np.resize(ids, length).tolist()) for length in lengths]
    return [*SAMPLES, *(text for text in own if is_visible(text))]


def require_equal(found: np.ndarray, expected: np.ndarray, texts: list[str], tolerance: float, reader: str) -> float:
    """The largest difference of a coordinate; both arrays are (n, d), row i that of ``texts[i]``.

    Raises:
        ValueError: if it is above ``tolerance`` or no number, or the shapes differ; says where and by how much.
    """
    if found.shape != expected.shape:
        raise ValueError(f"{reader} gives vectors of shape {found.shape}, not {expected.shape}: nothing was written")
    apart = np.abs(found - expected).max(axis=1)  # (n,)
    if not (apart <= tolerance).all():
        worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        raise ValueError(
            f"{reader} gives other vectors than the encoder: they differ by {apart[worst]:.1e}, above {tolerance:.0e}, "
            f"for the text {texts[worst][:40]!r}; nothing was written"
        )
    return float(apart.max())
