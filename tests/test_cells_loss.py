"""CellsLoss against this package's own trainer, and inside sentence-transformers' trainer, on a small random model."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from conftest import sentences, settled, tiny_encoder
from torch.testing import assert_close

from twodmse import TrainConfig
from twodmse.objectives.objective import BaseLoss
from twodmse.objectives.plan import TEACHER, Alignment, Cell, Plan
from twodmse.objectives.recipes import RECIPES, Recipe
from twodmse.sentence_transformers.teacher import Teacher
from twodmse.training.batches import DistinctBatches
from twodmse.training.trainer import CellTrainer

library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

from datasets import Dataset  # noqa: E402
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer  # noqa: E402
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments  # noqa: E402
from sentence_transformers.losses import CoSENTLoss, MSELoss, MultipleNegativesRankingLoss  # noqa: E402
from sentence_transformers.models import Dense  # noqa: E402
from transformers.models.bert.modeling_bert import BertPooler  # noqa: E402

from twodmse.sentence_transformers import CellsLoss, GridEvaluator, noised_copies  # noqa: E402
from twodmse.sentence_transformers.layers import LayerReader, layer_states, parts_by_length, preprocess, stack_columns  # noqa: E402

B = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model as sentence-transformers itself saves one, pooling head included."""
    ours = tiny_encoder().save(tmp_path_factory.mktemp("cells") / "ours")
    model = SentenceTransformer(str(ours), device="cpu")
    model[0].auto_model.pooler = BertPooler(model[0].auto_model.config)
    model.save(str(ours.parent / "theirs"))
    return str(ours.parent / "theirs")


@pytest.fixture
def model(folder):
    """Without dropout, so that two passes give the same."""
    return still(SentenceTransformer(folder, device="cpu"))


def still(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0
    return model


def columns_of(model, rows):
    return [preprocess(model, list(column)) for column in zip(*(row["texts"] for row in rows), strict=True)]


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def own_step(rows, texts, recipe, base, step, teacher, out, noise=0.0):
    """Loss and gradients of a step of this package's own trainer."""
    encoder = tiny_encoder()
    common = {"batch_size": len(rows), "steps": 1, "chunks": 2, "dropout": 0.0, "precision": "fp32", "noise": noise}
    config = TrainConfig(out=str(out), recipe=recipe.name, **common)
    trainer = CellTrainer(encoder, texts, DistinctBatches(texts, len(rows), 1, 0), recipe, base, config, teacher)
    trainer.state.global_step = step
    loss = trainer.compute_loss(encoder.backbone, trainer.data_collator(rows))
    loss.backward()
    return loss, gradients(encoder.backbone.model)


CASES = [(name, {}, False) for name in RECIPES] + [
    ("grid", {"pair_weight": 2.0}, True),
    ("grid", {"noised": True, "chunks": 3}, True),
    ("2dmse", {"noised": True}, False),
    ("2dmse", {"dims": (4, 8)}, False),
]


@pytest.mark.parametrize(("name", "options", "taught"), CASES)
@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("step", [0, 5])
def test_a_step_is_that_of_our_own_trainer(name, options, taught, scored, step, model, triplets, pairs, tmp_path):
    texts = pairs if scored else triplets
    rows = [texts[5 * i] for i in range(B)]
    teacher = tiny_encoder("roberta", layers=2) if taught else None
    noise = 0.5 if options.get("noised") else 0.0
    own_options = {name: value for name, value in options.items() if name not in ("noised", "chunks")}
    recipe = Recipe(name, 4, 32, teacher_dim=32 if taught else None, **own_options)
    base = BaseLoss.named("auto", scored, (1, 1, 1), 20.0)
    theirs, wanted = own_step(rows, texts, recipe, base, step, teacher, tmp_path / "run", noise)

    taught_by = SentenceTransformer(str(teacher.save(tmp_path / "teacher")), device="cpu") if taught else None
    loss_of = CellsLoss(model, name, teacher=taught_by, **options)
    loss_of.step = step
    gold = torch.tensor([row["gold"] for row in rows]) if scored else None
    columns = columns_of(model, rows)
    if noise:
        columns.append(preprocess(model, noised_copies([row["texts"][-1] for row in rows], model, noise)))
    loss = loss_of(columns, gold)
    loss.backward()

    assert_close(loss, theirs, atol=1e-5, rtol=1e-5)
    found = gradients(model[0].auto_model)
    assert set(found) == set(wanted)
    largest = max(gradient.abs().max() for gradient in wanted.values())
    for at in wanted:
        assert_close(found[at] / largest, wanted[at] / largest, atol=1e-5, rtol=0, msg=lambda m, at=at: f"{at}: {m}")
    assert sum(loss_of.last_terms.values()) == pytest.approx(loss.item(), abs=1e-5)


def test_a_step_is_one_pass_and_leaves_the_model_as_it_was(model, triplets):
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    passes = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    CellsLoss(model, "grid")(columns_of(model, [triplets[i] for i in range(B)]))
    hook.remove()
    assert len(passes) == 1
    for name, module in model.named_modules():
        assert "forward" not in module.__dict__
        assert set(module.__dict__) == set(before[name])
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("theirs", [CoSENTLoss, MultipleNegativesRankingLoss])
def test_a_loss_of_theirs_serves_as_base_loss(theirs, model, pairs, triplets):
    scored = theirs is CoSENTLoss
    rows = [(pairs if scored else triplets)[i] for i in range(B)]
    gold = torch.tensor([row["gold"] for row in rows]) if scored else None
    ours = CellsLoss(model, "mrl")(columns_of(model, rows), gold)
    assert_close(CellsLoss(model, "mrl", theirs(model))(columns_of(model, rows), gold), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "distilbert", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_states_are_those_of_our_encoder(architecture, pooling, texts, tmp_path):
    encoder = tiny_encoder(architecture, pooling=pooling)
    model = SentenceTransformer(str(encoder.save(tmp_path / "model")), device="cpu").eval()
    assert_close(LayerReader(model, batch_size=3).states(texts), encoder.states(texts), atol=1e-5, rtol=1e-5)


def test_a_recipe_and_a_base_loss_of_your_own(model, triplets):
    def second_layer(draw):
        """Layer 2 alone."""
        return Plan([Cell(2, draw.D, 3.0, "second")], [], {})

    def squares(columns, gold, dims):
        return torch.stack([(columns[0][:, :d] - columns[1][:, :d]).square().mean() for d in dims])

    columns = columns_of(model, [triplets[i] for i in range(B)])
    states = [layer_states(model, column)[2] for column in columns]
    wanted = 3 * (states[0] - states[1]).square().mean()
    assert_close(CellsLoss(model, second_layer, squares)(columns), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="'second_layer' aligns to no teacher"):
        CellsLoss(model, second_layer, teacher=model)


def test_a_teacher_of_another_vocabulary_reads_the_text(model, triplets, tmp_path):
    other = tiny_encoder("bert", layers=2)
    other.tokenizer.add_tokens(["unheard"])
    other.backbone.model.resize_token_embeddings(len(other.tokenizer))
    loss = CellsLoss(model, "grid", teacher=str(other.save(tmp_path / "other")))
    assert not loss.teacher.reads_tokens
    texts = [text for text in triplets.columns[0][:B]]
    assert_close(loss.teacher(preprocess(model, texts)).numpy(), other.encode(texts), atol=1e-5, rtol=1e-5)
    value = loss(columns_of(model, [triplets[i] for i in range(B)]))
    value.backward()
    assert all(p.grad is None for p in loss.teacher.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_parts_hold_every_text_once_and_no_padding_but_their_own(side):
    lengths = [3, 9, 1, 5, 7]
    rows = [torch.arange(1, n + 1) + 10 * n for n in lengths]
    pad = (lambda n: (9 - n, 0)) if side == "left" else (lambda n: (0, 9 - n))
    ids = torch.stack([F.pad(row, pad(len(row))) for row in rows])
    features = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    parts, places = parts_by_length(features, 2, side)
    assert [part["input_ids"].shape for part in parts] == [(3, 9), (2, 3)]
    found = [row[mask.bool()] for part in parts for row, mask in zip(*part.values(), strict=True)]
    assert [found[i].tolist() for i in places] == [row.tolist() for row in rows]


def test_what_cannot_be_done_is_refused(model, triplets, pairs, folder):
    columns = columns_of(model, [triplets[i] for i in range(B)])
    with pytest.raises(ValueError, match="3 columns of texts with labels"):
        CellsLoss(model)(columns, torch.ones(B))
    with pytest.raises(ValueError, match="1 columns of texts"):
        CellsLoss(model)(columns[:1])
    with pytest.raises(ValueError, match="3 columns of texts with labels and one of noised copies"):
        CellsLoss(model, noised=True)([*columns, columns[0]], torch.ones(B))
    with pytest.raises(ValueError, match="'mrl' as set has none"):
        CellsLoss(model, "mrl", noised=True)
    with pytest.raises(ValueError, match="'mrl' aligns to no teacher"):
        CellsLoss(model, "mrl", teacher=model)
    with pytest.raises(ValueError, match="does not compute from embeddings"):
        CellsLoss(model, "mrl", torch.nn.Linear(1, 1))
    with pytest.raises(
        ValueError, match=r"MSELoss takes a teacher's vectors as labels, .* teacher=\.\.\. of the recipe"
    ):
        CellsLoss(model, "mrl", MSELoss(model))

    class Own(MSELoss):
        pass

    with pytest.raises(ValueError, match="Own takes a teacher's vectors"):
        CellsLoss(model, "full", Own(model))
    gathering = MultipleNegativesRankingLoss(model, gather_across_devices=True)
    with pytest.raises(ValueError, match=r"gather_across_devices=True, and CellsLoss gathers .* itself: leave it out"):
        CellsLoss(model, "mrl", gathering)
    with pytest.raises(TypeError, match="no SentenceTransformer"):
        CellsLoss(tiny_encoder().backbone)
    narrow = SentenceTransformer(modules=[*list(model)[:2], Dense(32, 8)], device="cpu")
    with pytest.raises(ValueError, match="Transformer, Pooling, Dense"):
        CellsLoss(narrow)
    model[1].pooling_mode = "max"
    with pytest.raises(ValueError, match="pools by 'max'"):
        CellsLoss(model)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"chunks": 2.5}, "chunks is 2.5: give a whole number"),
        ({"chunks": "2"}, "chunks is '2': give a whole number"),
        ({"noised": 2}, "noised is 2: give True or False"),
        ({"base_loss": "foo"}, "unknown loss 'foo'"),
        ({"base_loss": None}, "base_loss is None: give a name, a loss of sentence-transformers or a function"),
        ({"recipe": "2dmse", "alignment": "no"}, "alignment is 'no'"),
        ({"recipe": "2dmse", "seed": 1.5}, "seed is 1.5"),
        ({"recipe": "2dmse", "last_layer": 0}, "last_layer is 0"),
        ({"recipe": "mrl", "dims": 8}, "dims is 8"),
        ({"recipe": "grid", "align_weight": "2"}, "align_weight is '2'"),
    ],
)
def test_settings_are_checked_when_they_are_given(model, wrong, says):
    with pytest.raises(ValueError, match=says):
        CellsLoss(model, **wrong)


def test_pairs_without_labels_are_not_taken_by_a_loss_that_compares_pairs(model, triplets):
    columns = columns_of(model, [triplets[i] for i in range(B)])[:2]
    with pytest.raises(
        ValueError, match="pairs without scores or negatives, among which cosent and angle find nothing"
    ):
        CellsLoss(model, "full", "cosent")(columns)


def test_labels_that_float32_has_rounded_together_are_refused_and_integers_are_compared_as_they_are(model, triplets):
    columns = columns_of(model, [triplets[i] for i in range(B)])[:2]
    seconds = 1_700_000_000 + torch.arange(B)
    loss = CellsLoss(model, "full", "cosent")
    with pytest.raises(ValueError, match="float32, which cannot tell such labels apart; subtract their smallest"):
        loss(columns, seconds.float())
    near = loss(columns, (seconds - seconds[0]).float())
    assert near > 0
    assert_close(loss(columns, seconds), near)
    assert_close(loss(columns, 1e9 * torch.arange(B)), near)  # large, and far from each other


def test_an_evaluation_draws_the_same_cells_whatever_step_the_trainer_is_at(model, triplets):
    columns = columns_of(model, [triplets[i] for i in range(B)])
    loss, drawn = CellsLoss(model, "2dmse"), []
    model.eval()
    for loss.step in range(8):
        loss(columns)
        drawn.append(tuple(loss.sampled.values()))
    assert set(drawn) == {tuple(Recipe("2dmse", 4, 32).plan(0).sampled.values())}


# ---------------------------------------------------------------- inside their trainer


def dataset(triplets):
    return Dataset.from_dict(dict(zip(("anchor", "positive", "negative"), triplets.columns, strict=True)))


def trained(folder, data, out, resume=None, follow=True, recipe="2dmse", watch=None, **settings):
    """A model trained for six steps, or what ``settings`` say, by their trainer."""
    model = SentenceTransformer(folder, device="cpu")
    loss = CellsLoss(model, recipe)
    if watch is not None:
        watch.clear()
        loss.register_forward_hook(lambda *_: watch.append((loss.step, loss.sampled)))
    common = {"max_steps": 6, "per_device_train_batch_size": 4, "save_steps": 3, "report_to": "none", "use_cpu": True}
    common |= {"learning_rate": 1e-3, "disable_tqdm": True, "logging_steps": 1, "dataloader_pin_memory": False}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=Arguments(output_dir=str(out), **(common | settings)),
        train_dataset=dataset(data),
        loss=loss,
        callbacks=[loss.callback()] if follow else None,
        **({"evaluator": GridEvaluator([sts()], [(1, 8), (4, 32)])} if "eval_strategy" in settings else {}),
    )
    trainer.train(resume_from_checkpoint=resume)
    return model, trainer


def sts():
    import numpy as np

    from twodmse.data.sets import TextSet

    column = sentences(80, seed=4)
    return TextSet("few", (tuple(column[:40]), tuple(column[40:])), np.linspace(0, 5, 40))


@pytest.mark.parametrize("follow", [True, False])
def test_a_resumed_run_ends_as_one_never_stopped(follow, folder, triplets, tmp_path):
    drawn, again = [], []
    whole, _ = trained(folder, triplets, tmp_path / "whole", follow=follow, watch=drawn)
    half = str(tmp_path / "whole" / "checkpoint-3")
    resumed, _ = trained(folder, triplets, tmp_path / "on", half, follow=follow, watch=again)
    assert again == drawn[3:]
    assert len({str(cells) for cells in drawn}) > 1
    assert_close(settled(resumed.state_dict()), settled(whole.state_dict()), atol=1e-7, rtol=0)


def test_batches_accumulated_for_one_step_train_the_same_cells(folder, triplets, tmp_path):
    seen = []
    trained(folder, triplets, tmp_path / "run", watch=seen, gradient_accumulation_steps=2, max_steps=4)
    assert [step for step, _ in seen] == [0, 0, 1, 1, 2, 2, 3, 3]
    plans = [Recipe("2dmse", 4, 32).plan(step).sampled for step in range(4)]
    assert [drawn for _, drawn in seen[::2]] == plans


def test_under_bf16_the_losses_stay_in_float32(folder, triplets, tmp_path):
    _, first = trained(folder, triplets, tmp_path / "fp32", recipe="grid", max_steps=2)
    _, second = trained(folder, triplets, tmp_path / "bf16", recipe="grid", max_steps=2, bf16=True)
    losses = [[row["loss"] for row in one.state.log_history if "loss" in row] for one in (first, second)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_gradient_checkpointing_gives_the_same_gradients(model, triplets):
    rows = [triplets[i] for i in range(B)]
    model.train()
    CellsLoss(model, "grid")(columns_of(model, rows)).backward()
    plain = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    model[0].auto_model.gradient_checkpointing_enable({"use_reentrant": False})
    CellsLoss(model, "grid")(columns_of(model, rows)).backward()
    for name, gradient in gradients(model).items():
        assert_close(gradient, plain[name], atol=1e-5, rtol=1e-4)


def test_evaluators_the_best_model_and_the_model_card(folder, triplets, tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "eval_grid_mean"}
    model, trainer = trained(
        folder, triplets, tmp_path / "run", load_best_model_at_end=True, greater_is_better=True, **settings
    )
    rows = [row for row in trainer.state.log_history if "eval_grid_mean" in row]
    assert [row["step"] for row in rows] == [3, 6]
    assert {"eval_grid_few_layer1_dim8", "eval_grid_few_layer4_dim32"} <= set(rows[0])
    assert trainer.state.best_metric == max(row["eval_grid_mean"] for row in rows)
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "twodmse.sentence_transformers.loss.CellsLoss" in card
    assert '"recipe": "2dmse"' in card
    assert "2402.14776" in card
    assert "few_layer4_dim32" in card
    assert [line for line in card.splitlines() if line.startswith("- loss:")] == ["- loss:CellsLoss"]
    json.dumps(trainer.loss.get_config_dict())
    assert model is trainer.model


def test_a_model_that_keeps_fewer_dims_is_refused(folder):
    cut = SentenceTransformer(folder, device="cpu", truncate_dim=10)
    for made in (lambda: CellsLoss(cut), lambda: GridEvaluator(["mini-sts"], [(1, 8)])(cut)):
        with pytest.raises(ValueError, match="keeps 10 of its 32 dims: set its truncate_dim to None"):
            made()


def test_states_refuse_packed_texts(model):
    with pytest.raises(ValueError, match="unpad_inputs"):
        layer_states(model, {"cu_seq_lens_q": torch.tensor([0])})


def test_a_teacher_of_another_vocabulary_reads_no_padding(model, triplets):
    taught = copy.deepcopy(model)
    taught.max_seq_length = model.max_seq_length - 1  # so that it reads texts instead of tokens
    teacher = Teacher(taught, model)
    assert not teacher.reads_tokens
    long, short = preprocess(model, ["a man runs in the park"]), preprocess(model, ["a dog"])
    stacked = stack_columns([long, short], "right")
    stacked["input_ids"][1, short["input_ids"].shape[1] :] = model.tokenizer.convert_tokens_to_ids("cat")
    assert_close(teacher(stacked)[1], torch.from_numpy(taught.encode(["a dog"]))[0], atol=1e-5, rtol=1e-5)


def test_a_plan_that_aligns_to_no_teacher_says_so(model, triplets):
    def plan(draw):
        return Plan(
            [Cell(draw.N, draw.D, 1.0, "last")], [Alignment(1, draw.D, TEACHER, 1.0, "scores", 1.0, True, "t")], {}
        )

    with pytest.raises(ValueError, match="the plan aligns to a frozen teacher, and there is none"):
        CellsLoss(model, plan)(columns_of(model, [triplets[i] for i in range(B)]))


def test_a_teacher_cut_in_width_is_refused_and_one_with_a_prompt_reads_texts(model):
    taught = copy.deepcopy(model)
    taught.prompts, taught.default_prompt_name = {"q": "big house "}, "q"
    teacher = Teacher(taught, model)
    assert not teacher.reads_tokens
    wanted = torch.from_numpy(taught.encode(["a dog"]))
    assert_close(teacher(preprocess(model, ["a dog"])), wanted, atol=1e-5, rtol=1e-5)
    taught.truncate_dim = 8
    with pytest.raises(ValueError, match="the teacher keeps 8 of its dims: set its truncate_dim to None"):
        Teacher(taught, model)
