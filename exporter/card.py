"""The model card of an artifact, in the Hugging Face Hub's format: pure rendering of what was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

from exporter.bundle.artifact import Artifact
from exporter.cascade.stage import LEXICAL
from exporter.cascade.trial import CascadeJudged, CascadeSpeed
from exporter.int8.select import describe_verdict, points
from exporter.int8.target import instruction_sets
from exporter.records import Candidate, Comparison, OtherRun
from trainer.data.sources import Source
from trainer.run import TrainRecord
from trainer.text.characters import visible


@dataclass(frozen=True)
class Facts:
    """What the card tells beside what the artifact says of itself."""

    score: float | None
    """None where it was not measured."""
    texts: int
    """Evaluation texts that the score was measured on."""
    link: Comparison
    """How far it is from the adapter."""
    rung: Candidate | None = None
    """What its recipe cost and brought, for an artifact from the ladder, or in half precision."""
    gpu: str | None = None
    """The GPU that it was measured on; None where that was a CPU."""


def render(artifact: Artifact, train: TrainRecord, facts: Facts) -> str:
    """Render the card."""
    return "\n".join([*_metadata(artifact, train, facts), *_text(artifact, train, facts), *_use(artifact)]) + "\n"


def tell_cascade(card: str, judged: CascadeJudged, speed: CascadeSpeed, *, stacked: bool) -> str:
    """Return a card that tells of the artifact's cascade, too; `stacked` says that the logits of both are added."""
    change = judged.change
    others = (
        "For the others, its logits and those of this model are added; this model alone answers unusual texts."
        if stacked
        else "This model answers the others."
    )
    told = (
        f"A linear classifier of words and pairs of words (`{LEXICAL}`) answers the texts that it is sure of, "
        f"{judged.answered:.0%} of the evaluation texts. {others} Both together: {change.metric} "
        f"{points(change.change)} points [{points(change.lower)}, {points(change.upper)}] against fp32, and "
        f"{speed.bulk.median:.2f}x the speed of this model alone with many texts, {speed.one.median:.2f}x one by one. "
        f"One text takes {speed.median:.0%} of the time of this model alone in the median, and {speed.p95:.0%} at the "
        "95th percentile."
    )
    return _told(card, told)


def tell_against(card: str, name: str, other: OtherRun) -> str:
    """Return the card of an artifact that tells how it compares with another run, too."""
    (verdict,) = (verdict for verdict in other.verdicts if verdict.artifact == name)
    unknown = f" Not checked was whether the texts are among {other.unchecked}." if other.unchecked else ""
    told = f"Against the classifier {_code(other.run.name)}: {describe_verdict(other, verdict)}.{unknown}"
    return _told(card, told)


def _told(card: str, told: str) -> str:
    """Return a card with one more paragraph of what was measured."""
    before, use = card.split("\n## Use\n", 1)
    return f"{before}\n{told}\n\n## Use\n{use}"


def _metadata(artifact: Artifact, train: TrainRecord, facts: Facts) -> list[str]:
    """Return the YAML block."""
    lines = ["---", "library_name: onnx", "pipeline_tag: text-classification"]
    lines += [
        "tags:",
        "- onnx",
        "- onnxruntime",
        *["- openvino"] * (artifact.engine == "openvino"),
        *["- lora"] * (train.training is not None and not train.training.config.trains_all),
        f"- {artifact.precision}",
    ]
    lines += ["- lora2onnx"]
    if train.base.revision:  # of the Hub: a folder's name would mean nothing there
        lines += [f"base_model: {_yaml(train.base.name)}"]
    if train.dataset.revision:
        lines += ["datasets:", f"- {_yaml(train.dataset.name.split(':')[0])}"]
    metric = "accuracy" if artifact.meaning().metric == "accuracy" else "f1"
    lines += ["metrics:", f"- {metric}"]
    if facts.score is None:
        return [*lines, "---"]
    lines += ["model-index:", f"- name: {_yaml(artifact.name)}", "  results:"]
    lines += ["  - task:", "      type: text-classification", "    dataset:"]
    lines += [f"      name: {_yaml(_shown(train.dataset))}", f"      type: {_yaml(_shown(train.dataset))}"]
    lines += ["    metrics:", f"    - type: {metric}", f"      value: {facts.score:.4f}", "---"]
    return lines


def _text(artifact: Artifact, train: TrainRecord, facts: Facts) -> list[str]:
    labels = ", ".join(_code(name) for name in artifact.label_names)
    link, metric = facts.link, artifact.meaning().metric
    cut = f"cut to {artifact.max_length} tokens (`{artifact.truncation}`)"
    reads = f"Texts are {cut}."
    if artifact.pairs:
        reads = f"It reads pairs of texts, which together are {cut}, the longer text first."
    texts = "pairs of texts" if artifact.pairs else "texts"
    lines = [
        "",
        f"# {artifact.name}",
        "",
        f"A text classifier for {_runs_in(artifact)}, in {artifact.precision}. {_answers(artifact)} {labels}. {reads}",
        "",
        _origin(train),
        "",
        "## Measured",
        "",
        _score(facts, metric, texts, flattered=train.training is not None),
        "",
        f"Against what was trained, on {link.texts} of these texts and {link.pieces} pieces of "
        f"them: logits differ by {link.max_abs_logit:.2g} at most, probabilities by {link.max_abs_probability:.2g}; "
        f"{link.flips_harmful} answers became wrong, {link.flips_helpful} right.",
    ]
    if rung := facts.rung:
        c, speed = rung.change, rung.speed
        in_bulk = f", {rung.bulk.median:.2f}x [{rung.bulk.low:.2f}, {rung.bulk.high:.2f}] many" if rung.bulk else ""
        lines += [
            "",
            f"Made by `{rung.recipe}`: {c.metric} {points(c.change)} points [{points(c.lower)}, "
            f"{points(c.upper)}] against fp32 ({c.harmful} answers became wrong, {c.helpful} right; an interval that "
            f"holds with 95 % for all {c.tried} candidates together), {speed.median:.2f}x [{speed.low:.2f}, "
            f"{speed.high:.2f}] its speed, one text a call{in_bulk} (median and quartiles). "
            f"Asked {rung.batch.name}, {rung.batch.flips} of {rung.batch.texts} answers change.",
        ]
    if facts.gpu and artifact.precision == "fp32":
        lines += [
            "",
            "Accuracy was measured in fp32. On a GPU, onnxruntime computes this file in TF32 where it is served.",
        ]
    here = facts.gpu or f"a CPU with {', '.join(instruction_sets()) or 'unknown instruction sets'}"
    return [*lines, "", f"Measured on {here}; another one can answer and perform differently."]


def _score(facts: Facts, metric: str, texts: str, *, flattered: bool) -> str:
    if facts.score is None:
        return "Neither its accuracy nor its speed was measured: it was exported on a machine without a GPU."
    name = f"{metric[0].upper()}{metric[1:]}"
    note = " The best epoch was chosen on the same texts, which flatters it a little." * flattered
    return f"{name} on {facts.texts:,} evaluation {texts}: {facts.score:.2%}.{note}"


def _runs_in(artifact: Artifact) -> str:
    return "OpenVINO, or ONNX Runtime where that is not installed" if artifact.engine == "openvino" else "ONNX Runtime"


def _answers(artifact: Artifact) -> str:
    if artifact.task == "single-label":
        return "It answers with one of"
    thresholds = ", ".join(f"{threshold:.3g}" for threshold in artifact.thresholds)
    return f"It answers with any number of labels, from probabilities of {thresholds} on, in the order of"


def _origin(train: TrainRecord) -> str:
    base, dataset = _code(_shown(train.base)), _code(_shown(train.dataset))
    if train.training is None:
        return f"It was trained elsewhere on top of {base}, and exported after measuring it on texts of {dataset}."
    taught, config = train.teaching, train.training.config
    how = "in full" if config.trains_all else "with LoRA"
    what = f"some layers of a fine-tuned {base}" if config.takes_layers else base
    story = f"It is {what}, fine-tuned {how} on {train.training.train_texts:,} texts of {dataset}, merged and exported."
    if taught is None:
        return story
    more = f", to {taught.unlabelled_texts:,} texts without labels, too" if taught.unlabelled_texts else ""
    return f"{story} It learnt the answers of a larger classifier, {_code(taught.run.name)}{more}."


def _use(artifact: Artifact) -> list[str]:
    one = '("a text", "its pair")' if artifact.pairs else '"a text"'
    dictionary = '{"text": "a text", "text_pair": "its pair"}' if artifact.pairs else one
    several = "top_k=None, " if artifact.task == "multi-label" else ""
    return [
        "",
        "## Use",
        "",
        f"With {'openvino, ' * (artifact.engine == 'openvino')}onnxruntime, tokenizers and numpy, and neither torch "
        "nor transformers:",
        "",
        "```python",
        "from exporter.runtime import Classifier  # of lora2onnx",
        "",
        f'Classifier.load("{artifact.name}").predict([{one}])',
        "```",
        "",
        "With transformers:",
        "",
        "```python",
        "from optimum.onnxruntime import ORTModelForSequenceClassification",
        "from transformers import AutoTokenizer, pipeline",
        "",
        f'model = ORTModelForSequenceClassification.from_pretrained("{artifact.name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{artifact.name}")',
        'classify = pipeline("text-classification", model=model, tokenizer=tokenizer)',
        f"classify([{dictionary}], {several}truncation=True, max_length={artifact.max_length})",
        "```",
        "",
        "`sha256sum -c SHA256SUMS` checks the files. `golden.json` holds this classifier's own answers to a few texts.",
    ]


def _shown(source: Source) -> str:
    """Return what to call a source in public: a path on somebody's machine is nobody's business but its last name."""
    return source.short_name


def _yaml(text: str) -> str:
    """Return a text as a quoted YAML string, which no character can end and nobody takes for HTML."""
    plain = (c if c.isprintable() and c not in '"\\<>&' else f"\\U{ord(c):08x}" for c in visible(text))
    return f'"{"".join(plain)}"'


def _code(name: str) -> str:
    """Return a name from elsewhere as code: in Markdown, with character references if it could be more than a name.

    Between backticks, a backtick would end it, and a simple converter might let HTML through.
    """
    if re.fullmatch(r"[^\W_][\w .,:;+@/#-]*", name):
        return f"`{name}`"
    escaped = (c if c.isalnum() or c == " " or not c.isascii() else f"&#{ord(c)};" for c in visible(name))
    return f"<code>{''.join(escaped)}</code>"
