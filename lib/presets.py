"""Whole configurations, as functions. A preset is laptop() with what differs.

    StoriesConfig      generate or ingest or selfinstruct, clean, dedup, novelty (where it is set), split
    VocabularyConfig   … + tokenizer, tokens, instructions
    Chain              … + pretrain, instruct, align, evaluate, export, report

The field of a stage has the stage's name; `instructions` is the tokens stage again, in a layout with requests.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from lib.overrides import with_overrides
from lib.stages.adopt import AdoptConfig
from lib.stages.align import AlignConfig
from lib.stages.clean import CleanConfig
from lib.stages.dedup import DedupConfig
from lib.stages.evaluate import EvaluateConfig
from lib.stages.export import ExportConfig
from lib.stages.generate import GenerateConfig
from lib.stages.ingest import IngestConfig
from lib.stages.instruct import InstructConfig
from lib.stages.novelty import NoveltyConfig
from lib.stages.pretrain import PretrainConfig
from lib.stages.report import ReportConfig
from lib.stages.selfinstruct import SelfinstructConfig
from lib.stages.split import SplitConfig
from lib.stages.tokenizer import TokenizerConfig
from lib.stages.tokens import TokensConfig
from lib.store import Config
from lib.text.prompts import PromptPlan
from lib.text.storyteller import Mischief


class StoriesConfig(Config):
    generate: GenerateConfig = GenerateConfig()
    ingest: IngestConfig | None = Field(None, description="read the user's stories instead of asking a teacher")
    selfinstruct: SelfinstructConfig | None = Field(None, description="ask for tasks like these instead of stories")
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()
    novelty: NoveltyConfig | None = Field(None, description="drop what was asked for before in nearly the same words")
    split: SplitConfig = SplitConfig()


class VocabularyConfig(StoriesConfig):
    adopt: AdoptConfig | None = Field(
        None, description="start from a public model: no tokenizer of one's own, no pretrain"
    )
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig(layout="pretrain")
    instructions: TokensConfig = TokensConfig(layout="natural")


class Chain(VocabularyConfig):
    pretrain: PretrainConfig
    instruct: InstructConfig
    align: AlignConfig = AlignConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    report: ReportConfig = ReportConfig()


# A teacher answers with a near copy now and then, and is out of breath at times: the built-in one is told to.
HICCUPS = Mischief(near_copies=0.02, rate_limited=0.01, retry_after=0.2)


def laptop() -> Chain:
    """10,000 stories and a model of 1.3 million parameters: two to five minutes on two CPU cores."""
    # Small batches, Muon and a start that copies: 0.26 bits per byte where AdamW at llama2.c's settings stood at 0.65.
    fast = {"batch_size": 8, "optimizer": "muon", "eval_every": 85, "eval_stories": 100}
    return Chain(
        # Parts of 1 % of the corpus: a night that adds 1 % then makes at most 2 % of the rows anew.
        generate=GenerateConfig(plan=PromptPlan(count=10_000), part_rows=100, mischief=HICCUPS),
        # The planted near copies lie around Jaccard 0.8; some stay below it, on both sides of the split.
        split=SplitConfig(on_contamination="drop"),
        pretrain=PretrainConfig(steps=300, lr=0.009, max_length=384, copying=0.5, **fast),
        instruct=InstructConfig(steps=190, lr=0.003, **fast),
        align=AlignConfig(concept="good friends", lr=3e-4, kl_coef=0.003, updates=12, eval_every=6, heldout_prompts=48),
    )


def smoke() -> Chain:
    """Everything once, as small as it goes: for tests, and for a first look at one's own changes."""
    small = {"batch_size": 8, "eval_every": 10, "checkpoint_every": 5, "compile": "off", "threads": 1}
    changes = {
        "generate": {"plan": {"count": 160}, "part_rows": 40},
        "tokenizer": {"vocab_size": 768},
        "pretrain": {
            "steps": 30,
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 2,
            "n_kv_heads": 2,
            "d_ff": 64,
            "max_length": 320,
        }
        | small,
        "instruct": {"steps": 15} | small,
        "align": {"updates": 3, "prompts_per_update": 2, "samples_per_prompt": 2, "max_new": 60, "heldout_prompts": 4},
        "evaluate": {"loss_stories": 20, "instructions": 4, "max_new": 60, "reward": "off"},
    }
    changes["align"] |= {"eval_every": 2, "checkpoint_every": 1, "threads": 1}
    chain = with_overrides(laptop(), changes)
    # Without the concept reward, whose embedding model takes longer to load than everything here takes to run.
    return chain.model_copy(update={"align": chain.align.model_copy(update={"rewards": {"words": 1.0}})})


PRESETS = {"laptop": laptop, "smoke": smoke}


def laptop_stories() -> StoriesConfig:
    return _narrow(laptop(), StoriesConfig)


def laptop_vocabulary() -> VocabularyConfig:
    return _narrow(laptop(), VocabularyConfig)


def _narrow(chain: Chain, kind: type[Config]) -> Any:
    return kind(**{name: getattr(chain, name) for name in kind.model_fields})


# ---- what a user changes of a preset


@dataclass(frozen=True)
class Source:
    """Where the stories come from, in a few words.

    Parameters
    ----------
    preset
        The configuration to start from.
    stories
        Your own stories instead of the teacher's: FILE.jsonl, .json, .txt, .parquet or hf:DATASET.
    heldout
        Text that is only measured on, never trained on.
    teacher
        Who writes the stories: the built-in grammar, or an OpenAI-compatible service (key in OPENAI_API_KEY).
    base_url
        The service's address.
    model
        The service's model.
    """

    preset: Literal["laptop", "smoke"] = "laptop"
    stories: str | None = None
    heldout: str | None = None
    teacher: Literal["storyteller", "openai"] | None = None
    base_url: str | None = None
    model: str | None = None


def chosen(source: Source, changes: BaseModel | None) -> Chain:
    """The preset with what the user changes of it; `changes` is an `overrides_of` Chain."""
    given = changes.model_dump(exclude_unset=True) if changes else {}
    read = {"path": source.stories, "heldout": source.heldout}
    asked = {"teacher": source.teacher, "base_url": source.base_url, "model": source.model}
    teachers = ("generate", "selfinstruct") if "selfinstruct" in given else ("generate",)
    for stage, short in (("ingest", read), *((teacher, asked) for teacher in teachers)):
        if short := {key: value for key, value in short.items() if value is not None}:
            given[stage] = given.get(stage, {}) | short
    if given.get("generate", {}).get("teacher") == "openai":
        given["generate"].setdefault("mischief", None)  # the presets tell only the built-in storyteller to misbehave
    return with_overrides(PRESETS[source.preset](), given)
