import json
import logging
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LAYERS, tiny_encoder, tiny_tokenizer
from transformers import AutoConfig, AutoModel, T5EncoderModel

from twodmse import Encoder, TrainConfig
from twodmse.encoder.storage import Layout
from twodmse.training import arguments, trainer
from twodmse.training import runs as training
from twodmse.training.arguments import check_still, set_dropout
from twodmse.training.batches import noised_copies
from twodmse.training.checkpoints import fault, last_complete
from twodmse.training.runs import train_encoder
from twodmse.training.trainer import NotFiniteError


def config(out, **changes) -> TrainConfig:
    settings = {"steps": 6, "batch_size": 8, "lr": 1e-3, "precision": "fp32", "save_every": 2, "out": str(out)}
    return TrainConfig(**(settings | changes))


def weights(encoder):
    return torch.cat([p.detach().flatten() for p in encoder.backbone.parameters()])


@pytest.mark.parametrize("recipe", ["full", "mrl", "2dmse", "2dmse-weighted", "ese", "st2d", "starbucks", "grid"])
def test_every_recipe_trains_and_logs_its_terms(recipe, triplets, tmp_path):
    encoder = tiny_encoder()
    before = weights(encoder).clone()
    options = {"compress_dim": 8} if recipe == "ese" else {}
    run = train_encoder(encoder, triplets, config(tmp_path / "run", recipe=recipe, steps=3, **options))
    assert not torch.equal(weights(encoder), before)
    assert run.history["step"].tolist() == [1, 2, 3]
    terms = run.history.drop(columns=["step", "loss", "lr", "grad_norm", "layer", "dim", "last_dim"], errors="ignore")
    np.testing.assert_allclose(terms.sum(axis=1), run.history["loss"], rtol=1e-4)


def test_bfloat16_reaches_the_teacher_too_and_attention_is_the_plain_one(triplets, tmp_path, monkeypatch):
    teacher, seen = tiny_encoder(), []
    teacher.backbone.layers[0].register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    monkeypatch.setattr(trainer.Encoder, "load", lambda *_: teacher)
    encoder, kinds = tiny_encoder(), []
    attention = encoder.backbone.model.config._attn_implementation
    encoder.backbone.layers[0].register_forward_hook(
        lambda *_: kinds.append(encoder.backbone.model.config._attn_implementation)
    )
    settings = config(tmp_path / "run", recipe="grid", teacher="frozen", precision="bf16", steps=2)
    train_encoder(encoder, triplets, settings)
    assert seen == [True] * 3  # whether it works is tried before the two steps
    assert kinds[-2:] == ["eager"] * 2
    assert encoder.backbone.model.config._attn_implementation == attention != "eager"


def test_an_encoder_computes_after_training_and_in_evaluations_as_the_model_that_was_saved(triplets, tmp_path):
    encoder, texts, scored = tiny_encoder(), list(triplets.columns[0][:5]), []

    def evaluator(encoder):
        scored.append(encoder.encode(texts))
        return {"spearman": 1.0}

    before = [value for *_, value in arguments.dropouts(encoder.backbone)]
    assert any(before)
    settings = config(tmp_path / "run", precision="bf16", steps=2, eval_every=1, dropout=0.0)
    run = train_encoder(encoder, triplets, settings, evaluator=evaluator)
    loaded = Encoder.load(tmp_path / "run" / "model")
    np.testing.assert_array_equal(run.encoder.encode(texts), loaded.encode(texts))
    np.testing.assert_allclose(scored[-1], loaded.encode(texts), atol=1e-6)  # attention of another kind
    assert [value for *_, value in arguments.dropouts(encoder.backbone)] == before


def test_an_encoder_takes_over_the_weights_of_a_finished_run(triplets, tmp_path):
    settings = config(tmp_path / "run", order_dims=True)
    run = train_encoder(tiny_encoder(), triplets, settings)
    again = tiny_encoder()
    assert train_encoder(again, triplets, settings, resume=True).encoder is again
    assert torch.equal(weights(again), weights(run.encoder))


def test_a_start_that_fails_leaves_the_order_of_coordinates(triplets, tmp_path):
    encoder = tiny_encoder()
    before = weights(encoder).clone()
    with pytest.raises(ValueError, match="loss"):
        train_encoder(encoder, triplets, config(tmp_path / "run", order_dims=True), base_loss=lambda columns, gold: 1.0)
    assert torch.equal(weights(encoder), before)


def test_a_start_that_cannot_be_written_leaves_the_order_of_coordinates(triplets, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    encoder = tiny_encoder()
    before = weights(encoder).clone()
    monkeypatch.setattr(training, "write_start", full)
    with pytest.raises(OSError, match="No space"):
        train_encoder(encoder, triplets, config(tmp_path / "run", order_dims=True))
    assert torch.equal(weights(encoder), before)


def test_vectors_are_not_held_to_coordinates_of_another_order(triplets, tmp_path):
    tiny_encoder().save(tmp_path / "start")
    settings = {"teacher": str(tmp_path / "start"), "recipe": "grid", "steps": 2}
    first = config(tmp_path / "run", backbone=str(tmp_path / "start"), order_dims=True, **settings)
    model = train_encoder(Encoder.load(tmp_path / "start"), triplets, first).folder / "model"
    further = config(tmp_path / "next", backbone=str(model), **settings)
    with pytest.raises(ValueError, match=r"model were put in an order of their own .*: give hold_weight=0"):
        train_encoder(Encoder.load(model), triplets, further)
    train_encoder(
        Encoder.load(model), triplets, config(tmp_path / "next", backbone=str(model), hold_weight=0, **settings)
    )
    third = config(tmp_path / "third", backbone=str(tmp_path / "next" / "model"), **settings)
    with pytest.raises(ValueError, match="give hold_weight=0"):
        train_encoder(Encoder.load(tmp_path / "next" / "model"), triplets, third)


def test_rows_in_memory_have_columns_to_name_and_nothing_of_the_hub(triplets, tmp_path):
    rows = pd.DataFrame({"q": triplets.columns[0], "positive": triplets.columns[1]})
    tiny_encoder().save(tmp_path / "start")
    settings = {"backbone": str(tmp_path / "start"), "steps": 1}
    run = training.train(config(tmp_path / "run", data_columns=("q=anchor",), **settings), data=rows)
    assert len(run.history) == 1
    with pytest.raises(ValueError, match="data_split is 'test', of a set of the hub: leave it out with rows in memory"):
        training.train(config(tmp_path / "other", data_split="test", **settings), data=rows)
    with pytest.raises(ValueError, match=r"data_columns is .*: it must be each column once"):
        config(tmp_path / "other", data_columns=("q=anchor", "q=positive"))


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_on_a_cpu_that_computes_it(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert arguments.wants_bf16("auto", on_cpu=True) is native
    assert [arguments.wants_bf16(name, on_cpu=True) for name in ("bf16", "fp32")] == [True, False]


def test_a_model_that_cannot_run_in_bfloat16_is_refused_or_trained_in_float32(triplets, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    encoder, kinds = tiny_encoder(), []

    def hook(_, args):
        kinds.append(torch.is_autocast_enabled("cpu"))
        if kinds[-1]:
            raise RuntimeError("expected scalar type Float but found BFloat16")

    encoder.backbone.layers[0].register_forward_pre_hook(hook)
    with pytest.raises(ValueError, match=r"BertModel does not run in bfloat16 \(expected .*--precision fp32"):
        train_encoder(encoder, triplets, config(tmp_path / "run", precision="bf16"))
    assert not (tmp_path / "run").exists()
    train_encoder(encoder, triplets, config(tmp_path / "run", precision="auto", steps=1))
    assert caplog.text.count("it is trained in float32") == 1
    assert kinds[:2] == [True, True]
    assert len(kinds) > 2
    assert not any(kinds[2:])


@pytest.mark.parametrize(("native", "kinds"), [(True, (True, False)), (False, (False, True))])
def test_auto_takes_float16_where_a_gpu_has_no_bfloat16(native, kinds, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    assert (arguments.wants_bf16("auto", on_cpu=False), arguments.wants_fp16("auto", "cuda")) == kinds
    assert not any(arguments.wants_fp16(*case) for case in (("fp32", "cuda"), ("bf16", "cuda"), ("auto", "cpu")))


def test_noise_needs_an_alignment_to_see_it(tmp_path):
    with pytest.raises(ValueError, match=r"noise is 0\.4: recipe 'full' does not use it"):
        config(tmp_path / "run", recipe="full", noise=0.4)
    with pytest.raises(ValueError, match=r"noise is 0\.4: without alignment it has no effect"):
        config(tmp_path / "run", alignment=False, noise=0.4)


def test_learning_rates_rise_towards_the_first_layer(triplets, tmp_path):
    encoder = tiny_encoder()
    watched = [encoder.backbone.model.get_input_embeddings()]
    watched += [layer.attention.self.query for layer in encoder.backbone.layers]
    before = [module.weight.detach().clone() for module in watched]
    settings = {"recipe": "mrl", "steps": 1, "warmup": 0, "lr": 1e-4, "first_lr": 8}
    run = train_encoder(encoder, triplets, config(tmp_path / "run", **settings))
    moved = [(m.weight.detach() - old).abs().max().item() for m, old in zip(watched, before, strict=True)]
    rates = [8e-4, 8e-4, 4e-4, 2e-4, 1e-4]  # Adam's first step is the learning rate in every coordinate
    assert moved == pytest.approx(rates, rel=0.02)
    assert run.history["lr"].tolist() == [1e-4]


def test_the_run_folder_holds_the_model_its_config_and_the_history(triplets, tmp_path):
    run = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"))
    loaded = Encoder.load(run.folder / "model")
    np.testing.assert_allclose(loaded.encode(["a man runs"]), run.encoder.encode(["a man runs"]), atol=1e-6)
    assert TrainConfig.read(run.folder / "model" / "train_config.json") == config(tmp_path / "run")
    stored = pd.read_csv(run.folder / "history.csv")
    assert list(stored.columns[:6]) == ["step", "loss", "lr", "grad_norm", "layer", "dim"]
    assert {"last_full", "last_cut", "shallow_full", "shallow_cut", "alignment"} <= set(stored.columns)
    assert stored["layer"].between(1, LAYERS - 1).all()


def test_the_terms_of_the_history_are_in_the_order_of_their_dims(triplets, tmp_path):
    history = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", recipe="mrl", steps=1)).history
    assert list(history.columns[-3:]) == ["last_8", "last_16", "last_32"]


def test_every_checkpoint_is_a_usable_model_and_old_ones_go(triplets, tmp_path):
    train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"))
    found = sorted(p.name for p in (tmp_path / "run").glob("checkpoint-*"))
    assert found == ["checkpoint-4", "checkpoint-6"]
    assert Encoder.load(tmp_path / "run" / "checkpoint-4").num_layers == LAYERS
    assert fault(tmp_path / "run" / "checkpoint-4") is None


def interrupted(triplets, folder, at, monkeypatch, **changes):
    """A run stopped at step ``at`` as if its process had ended there."""
    step = trainer.CellTrainer.training_step

    def stop(self, *args, **kwargs):
        if self.state.global_step == at:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.CellTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train_encoder(tiny_encoder(), triplets, config(folder, **changes))


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(triplets, tmp_path, monkeypatch):
    whole = train_encoder(tiny_encoder(), triplets, config(tmp_path / "whole", dropout=0.1))
    interrupted(triplets, tmp_path / "cut", 5, monkeypatch, dropout=0.1)
    resumed = train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut", dropout=0.1), resume=True)
    assert torch.equal(weights(resumed.encoder), weights(whole.encoder))
    pd.testing.assert_frame_equal(resumed.history, whole.history)


@pytest.mark.parametrize("log_every", [3, 4, 5])  # the checkpoint, after step 4, lies between two rows, or on one
def test_a_resumed_run_logs_the_means_of_one_never_stopped(log_every, triplets, tmp_path, monkeypatch):
    whole = train_encoder(tiny_encoder(), triplets, config(tmp_path / "whole", log_every=log_every))
    interrupted(triplets, tmp_path / "cut", 5, monkeypatch, log_every=log_every)
    resumed = train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut", log_every=log_every), resume=True)
    pd.testing.assert_frame_equal(resumed.history, whole.history)


def test_dropout_is_really_on_while_training(triplets, tmp_path):
    runs = [train_encoder(tiny_encoder(), triplets, config(tmp_path / str(p), dropout=p, steps=1)) for p in (0.0, 0.5)]
    assert runs[0].history["loss"][0] != runs[1].history["loss"][0]


@pytest.mark.parametrize("damage", ["cut short", "truncated", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(damage, triplets, tmp_path, monkeypatch, caplog):
    whole = train_encoder(tiny_encoder(), triplets, config(tmp_path / "whole"))
    interrupted(triplets, tmp_path / "cut", 5, monkeypatch)
    newest = tmp_path / "cut" / "checkpoint-4"
    if damage == "cut short":
        (newest / "complete.json").unlink()
    elif damage == "missing":
        (newest / "optimizer.pt").unlink()
    else:
        data = (newest / "model.safetensors").read_bytes()
        (newest / "model.safetensors").write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        assert last_complete(tmp_path / "cut").name == "checkpoint-2"
    assert "checkpoint-4 is not used" in caplog.text
    resumed = train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut"), resume=True)
    assert torch.equal(weights(resumed.encoder), weights(whole.encoder))


def test_resuming_with_other_settings_is_refused(triplets, tmp_path, monkeypatch):
    interrupted(triplets, tmp_path / "run", 5, monkeypatch)
    with pytest.raises(ValueError, match=r"other settings \(lr: 0\.001 -> 0\.01\)"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", lr=0.01), resume=True)


def test_a_used_folder_is_refused_before_anything_is_loaded(triplets, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another --out"):
        training.train(config(tmp_path / "run", backbone="nowhere"))
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(triplets, tmp_path, monkeypatch):
    real = trainer.objective

    def poisoned(states, plan, *args):
        poisoned.calls += 1
        return real(states * (float("nan") if poisoned.calls == 4 else 1.0), plan, *args)

    poisoned.calls = 0
    monkeypatch.setattr(trainer, "objective", poisoned)
    with pytest.raises(NotFiniteError, match=r"became nan at step 4: lower lr"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"))
    assert fault(tmp_path / "run" / "checkpoint-2") is None


def test_scored_pairs_train_with_cosent_by_default(pairs, tmp_path):
    run = train_encoder(tiny_encoder(), pairs, config(tmp_path / "run", recipe="full", steps=2))
    assert run.history["loss"].between(0.01, 50).all()


def test_two_passes_take_the_lower_layers_from_another_dropout(triplets, tmp_path):
    settings = {"steps": 1, "dropout": 0.5, "seed": 3}
    once = train_encoder(tiny_encoder(), triplets, config(tmp_path / "one", **settings)).history
    twice = train_encoder(tiny_encoder(), triplets, config(tmp_path / "two", two_passes=True, **settings)).history
    assert once["last_full"][0] == twice["last_full"][0]
    assert once["shallow_full"][0] != twice["shallow_full"][0]


def test_config_is_stored_when_the_run_starts(triplets, tmp_path, monkeypatch):
    interrupted(triplets, tmp_path / "run", 3, monkeypatch)
    assert json.loads((tmp_path / "run" / "train_config.json").read_text())["recipe"] == "2dmse"


def test_a_resumed_run_stores_logs_and_scores_as_its_new_settings_say(triplets, tmp_path, monkeypatch):
    def scored(encoder):
        return {"spearman_16": 1.0, "spearman_8": 2.0, "spearman": 3.0}

    with monkeypatch.context() as patch:
        patch.setattr("test_training.train_encoder", partial(train_encoder, evaluator=scored))
        interrupted(triplets, tmp_path / "run", 2, monkeypatch, eval_every=2)
    new = config(tmp_path / "run", save_every=1, keep=10, log_every=2, eval_every=1)
    run = train_encoder(tiny_encoder(), triplets, new, resume=True, evaluator=scored)
    assert sorted(path.name[-1] for path in run.folder.glob("checkpoint-*")) == list("23456")
    assert run.evaluations["step"].tolist() == [2, 3, 4, 5, 6]
    assert run.history["step"].tolist() == [1, 2, 4, 6]
    assert run.evaluations.columns.tolist() == ["step", "spearman", "spearman_8", "spearman_16"]  # as if never stopped


def test_an_encoder_that_was_cut_in_width_is_not_trained(triplets, tmp_path):
    with pytest.raises(ValueError, match="the encoder keeps 8 of its 32 coordinates, and training would train all"):
        train_encoder(tiny_encoder().submodel(2, 8), triplets, config(tmp_path / "run", recipe="mrl"))
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_was_cut_in_width_keeps_its_order():
    teacher = tiny_encoder().submodel(4, 8)
    before = teacher.encode(["a man runs", "two dogs"])
    training.put_in_order(tiny_encoder(), teacher, list(range(LAYERS * 8))[::-1])
    np.testing.assert_array_equal(teacher.encode(["a man runs", "two dogs"]), before)


def test_no_run_is_asked_for_what_never_happens(tmp_path):
    with pytest.raises(ValueError, match="eval_every is 7: it must be at most steps, 6, or nothing is scored"):
        config(tmp_path / "run", eval_every=7)
    with pytest.raises(ValueError, match=r"temperature is 11\.0: it must be at most 10"):
        config(tmp_path / "run", temperature=11.0)


def test_vectors_are_not_held_to_a_teacher_of_another_width(triplets, tmp_path, monkeypatch):
    teacher = tiny_encoder().submodel(4, 8)
    monkeypatch.setattr(trainer.Encoder, "load", lambda *_: teacher)
    settings = {"recipe": "grid", "teacher": "frozen", "steps": 1}
    with pytest.raises(ValueError, match=r"hold_weight is 0\.5, and the teacher has 8 dims, not 32"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", hold_weight=0.5, **settings))
    for weight in (0.0, 1.0):  # off, and the default
        train_encoder(tiny_encoder(), triplets, config(tmp_path / f"run{weight}", hold_weight=weight, **settings))


def test_noise_needs_words_in_the_vocabulary(triplets, tmp_path, monkeypatch):
    monkeypatch.setattr("twodmse.training.batches.vocabulary_words", lambda model: [])
    with pytest.raises(ValueError, match=r"noise is 0\.3: the vocabulary has no words of three letters or more"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", recipe="grid", noise=0.3))
    with pytest.raises(ValueError, match="the vocabulary has no words"):
        noised_copies(["a man"], tiny_encoder())


@pytest.mark.parametrize(
    ("texts", "share"), [("a man", 0.5), (["a man"], 2), (["a man"], -1), (["a man"], float("nan"))]
)
def test_noise_is_a_share_of_the_words_of_a_list(texts, share):
    with pytest.raises(ValueError, match="give a list of texts, and a share of their words from 0 to 1"):
        noised_copies(texts, tiny_encoder(), share)


def test_an_encoder_that_does_not_read_as_the_config_says_is_refused(triplets, tmp_path):
    with pytest.raises(ValueError, match="pooling is 'cls', and the encoder pools by 'mean'"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", pooling="cls"))
    with pytest.raises(ValueError, match="max_length is 5, and the encoder reads 32 tokens"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", max_length=5))
    assert not (tmp_path / "run").exists()
    settings = {"pooling": "mean", "max_length": 32, "steps": 1, "log_every": 1}
    run = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", **settings))
    assert TrainConfig.read(run.folder / "train_config.json").max_length == 32


@pytest.mark.parametrize("kind", ["t5", "opt", "modernbert", "xglm", "bert"])
def test_every_dropout_is_set_and_no_layer_is_left_out(kind):
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "pad_token_id": 0, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    own = {
        "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "dropout_rate": 0.3},
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.3, "attention_dropout": 0.3, "layerdrop": 0.9},
        "modernbert": {"intermediate_size": 48, "attention_dropout": 0.3, "mlp_dropout": 0.3, "cls_token_id": 2},
        "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4, "dropout": 0.3, "layerdrop": 0.9},
        "bert": {"intermediate_size": 48, "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3},
    }
    settings = AutoConfig.for_model(kind, **({} if kind in ("t5", "xglm") else sizes), **own[kind])
    if kind in ("t5", "xglm"):
        settings.vocab_size, settings.pad_token_id = 40, 0
    model = T5EncoderModel(settings) if kind == "t5" else AutoModel.from_config(settings)
    encoder = Encoder(model, tiny_tokenizer(), Layout(max_length=16))
    with pytest.raises((ValueError, RuntimeError)):
        check_still(encoder)
    set_dropout(encoder.backbone, 0.0)
    encoder.backbone.eval()
    check_still(encoder)
    assert not encoder.backbone.training
    set_dropout(encoder.backbone, 0.5)
    with pytest.raises(ValueError, match="still drops at random in a place that is not known: leave it out"):
        check_still(encoder)
    set_dropout(encoder.backbone, None)
    encoder.backbone.train()
    assert encoder.encode(["a man runs"], layer=2).tolist() == encoder.encode(["a man runs"], layer=2).tolist()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_not_trained(kind, triplets, tmp_path):
    encoder = Encoder.load(tiny_encoder().save(tmp_path / "model"), dtype=kind)
    with pytest.raises(ValueError, match=f"the encoder's weights are in {kind}, in which most steps round to nothing"):
        train_encoder(encoder, triplets, config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
