"""A static site in which two models run in the reader's own browser: any text, at every depth and width.

    site/index.html
    site/models/before/    tokenizer; in onnx/ a graph of all layers, a graph a depth, and the weights that they share
    site/models/after/
    site/runtime/          transformers.js and its WebAssembly, where a copy of them was given

The numbers are those of the 8-bit ONNX file, as onnxruntime gives them for one text at a time.
"""

import json
import shutil
from pathlib import Path

from twodmse.encoder.encoder import Encoder
from twodmse.explorer.page import RESOURCES, TITLES, check_models, filled, read_sentences
from twodmse.export.exporting import export
from twodmse.export.onnx import MODEL, QUANTISED, closing_token
from twodmse.files import MARK, atomic_folder
from twodmse.version import __version__

VERSION = "4.3.1"  # of transformers.js that the site was tested with
CDN = "https://cdn.jsdelivr.net"
LIBRARY = f"{CDN}/npm/@huggingface/transformers@{VERSION}/dist/transformers.min.js"
SCRIPT, WASM = "transformers.min.js", "ort-wasm-simd-threaded*"  # of transformers.js, and of onnxruntime-web beside it
KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = "weights.bin"
NUMBERS = (
    "Both models run here, in your browser, with 8-bit weights: nothing that you type leaves it. The cosines are those "
    "of these weights, which differ a little from the library's in full precision."
)


def write_live(
    before: Encoder,
    after: Encoder,
    names: tuple[str, str],
    out: str | Path,
    runtime: str | Path | None = None,
    overwrite: bool = False,
) -> int:
    """Write the site whole or not at all.

    Args:
        before: an encoder.
        after: an encoder with the same numbers of layers and dims.
        names: what the page calls the two models.
        out: folder to write, for any web host.
        runtime: a folder that holds transformers.js (the package @huggingface/transformers, or the ``node_modules``
            it is installed in); None loads it from its CDN.
        overwrite: replace an earlier site.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: if the encoders differ in shape, or cannot be written as ONNX.
        FileNotFoundError: if ``runtime`` lacks the library, or a package that ONNX needs is not installed.
        FileExistsError: if ``out`` holds anything and ``overwrite`` is false, or anything but a site.
    """
    check_models(before, after)
    found = None if runtime is None else runtime_files(Path(runtime))
    with atomic_folder(out, overwrite) as work:
        models = []
        for title, name, encoder in zip(TITLES, names, (before, after), strict=True):
            folder = title.lower()
            size = write_model(encoder, work / "models" / folder)
            unk = encoder.tokenizer.unk_token_id
            special = [i for i in encoder.tokenizer.all_special_ids if i != unk]
            told = {"title": title, "name": name, "folder": folder, "unk": unk, "special": special, "bytes": size}
            models.append(told | {"max_length": encoder.layout.max_length, "closing": closing_token(encoder)})
        if found:
            (work / "runtime").mkdir()
            for path in found:
                shutil.copy(path, work / "runtime" / path.name)
        (work / MARK).write_text(json.dumps({"site": __version__}), encoding="utf-8")  # it may be replaced
        (work / "index.html").write_text(live_page(before, models, found is not None), encoding="utf-8")
        return sum(path.stat().st_size for path in work.rglob("*") if path.is_file())


def live_page(encoder: Encoder, models: list[dict], local: bool) -> str:
    """The site's page as HTML text.

    Args:
        encoder: one of the models, for their shape.
        models: a dict each, with title, name, folder, unk, special, bytes, max_length and closing (the token that ends
            every text, or None).
        local: whether the library lies beside the page.
    """
    start = read_sentences()["text"].tolist()
    live = {
        "library": f"./runtime/{SCRIPT}" if local else LIBRARY,
        "wasm": "./runtime/" if local else None,
        "bytes": [model["bytes"] for model in models],
        "start": {"first": start[0], "second": start[1], "query": start[4], "list": start[5:17]},
    }
    shown = [{**model, "unknown": [], "cut": []} for model in models]
    data = {"error": 0, "models": shown, "sentences": [], "tries": [], "live": live}
    host = "" if local else f" {CDN}"
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:{host}; "
        f"connect-src 'self' blob:{host}; worker-src 'self' blob:"
    )
    source = " and its library from beside it." if local else f"; its library from {CDN}."
    loads = f"The page loads its models{source}"
    script = (RESOURCES / "live.html").read_text(encoding="utf-8")
    return filled(encoder, data, {"POLICY": policy, "NUMBERS": NUMBERS, "LOADS": loads, "LIVE": script})


def write_model(encoder: Encoder, folder: Path) -> int:
    """Write one model as the page reads it: 8-bit, all layers at once, and each depth by itself. Returns its bytes."""
    export(encoder, folder, format="onnx", int8=True, all_layers=True)
    (folder / MODEL).unlink()
    for path in folder.iterdir():
        if path.is_file() and path.name not in KEPT:
            path.unlink()
    share_weights(folder / QUANTISED, encoder.num_layers)
    return sum(path.stat().st_size for path in folder.rglob("*") if not path.name.startswith("depth-"))


def share_weights(path: Path, layers: int) -> None:
    """Move the weights of a graph of all layers to a file of their own, and write a graph a depth over the same file.

    The graph of depth n gives the pooled output of layer n alone, so that its time is that of n layers.

    Args:
        path: the graph, whose output stacks the pooled outputs of layers 0..N.
        layers: N.

    Raises:
        ValueError: if the graph is of another form.
    """
    import onnx
    from onnx import helper, utils

    model = onnx.load(path)
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=WEIGHTS, size_threshold=1024
    )
    (path.parent / WEIGHTS).chmod(0o644)  # onnx lets its owner alone read it; a web host is another
    model = onnx.load(path, load_external_data=False)
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers[model.graph.output[0].name]
    while node.op_type != "Concat" or len(node.input) != layers + 1:  # what stacks the layers, before cuts and casts
        if node.input[0] not in makers:
            raise ValueError(f"{path.name} stacks no {layers + 1} outputs: it is no file of all layers")
        node = makers[node.input[0]]
    inputs = [each.name for each in model.graph.input]
    for n in range(1, layers + 1):
        name = node.input[n]
        if name not in {info.name for info in model.graph.value_info}:
            model.graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        depth = utils.Extractor(model).extract_model(inputs, [name])
        (path.parent / f"depth-{n}_quantized.onnx").write_bytes(depth.SerializeToString())


def runtime_files(folder: Path) -> list[Path]:
    """The files of transformers.js that a page needs, from a package folder or the ``node_modules`` above it.

    Raises:
        FileNotFoundError: if they are not all there.
    """
    script = next(iter(sorted(folder.rglob(f"transformers/dist/{SCRIPT}")) or sorted(folder.rglob(SCRIPT))), None)
    beside = {path.name: path for path in sorted(folder.rglob(WASM)) if path.suffix in (".mjs", ".wasm")}
    wanted = [path for name, path in beside.items() if name.startswith("ort-wasm-simd-threaded.asyncify.")]
    if script is None or len(wanted) != 2:
        raise FileNotFoundError(
            f"{folder} does not hold transformers.js and its WebAssembly: make it with "
            f"'npm install --ignore-scripts @huggingface/transformers@{VERSION}' and give its node_modules"
        )
    return [script, *wanted]
