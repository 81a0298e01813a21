"""What a model card cites for each recipe, as BibTeX."""

ARXIV = """@misc{{{key},
    title={{{title}}},
    author={{{authors}}},
    year={{{year}}},
    eprint={{{number}}},
    archivePrefix={{arXiv}},
    primaryClass={{{subject}}}
}}"""


def _arxiv(key: str, title: str, authors: str, number: str, subject: str = "cs.CL") -> str:
    year = f"20{number[:2]}"
    return ARXIV.format(key=key, title=title, authors=authors, year=year, number=number, subject=subject)


ANGLE = _arxiv("li2023angle", "AnglE-optimized Text Embeddings", "Xianming Li and Jing Li", "2309.12871")
MRL = _arxiv(
    "kusupati2022matryoshka",
    "Matryoshka Representation Learning",
    "Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and Aditya Sinha and Vivek Ramanujan "
    "and William Howard-Snyder and Kaifeng Chen and Sham Kakade and Prateek Jain and Ali Farhadi",
    "2205.13147",
    "cs.LG",
)
TWO_DMSE = _arxiv(
    "li20242d",
    "2D Matryoshka Sentence Embeddings",
    "Xianming Li and Zongxi Li and Jing Li and Haoran Xie and Qing Li",
    "2402.14776",
)
STARBUCKS = _arxiv(
    "zhuang2024starbucks",
    "Starbucks: Improved Training for 2D Matryoshka Embeddings",
    "Shengyao Zhuang and Shuai Wang and Bevan Koopman and Guido Zuccon",
    "2410.13230",
    "cs.IR",
)
CITATIONS = {"full": ANGLE, "mrl": MRL, "starbucks": STARBUCKS}  # of the others, the paper that cells come from


def citation(recipe: str) -> str:
    """The BibTeX entry of a recipe's source."""
    return CITATIONS.get(recipe, TWO_DMSE)
