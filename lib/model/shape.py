"""What the network looks like. Imports no torch, so that a config may hold it."""

from typing import Self

from pydantic import Field, model_validator

from lib.store import Config

PROJECTIONS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")  # the matrices of a block


class Dimensions(Config):
    """What a person chooses; the vocabulary comes from the tokenizer."""

    d_model: int = Field(128, ge=2, description="width of the residual stream")
    n_layers: int = Field(5, ge=1, description="blocks")
    n_heads: int = Field(4, ge=1, description="query heads")
    n_kv_heads: int = Field(4, ge=1, description="key and value heads; fewer than n_heads is grouped-query attention")
    d_ff: int = Field(344, ge=1, description="width of the feed-forward layer")
    max_length: int = Field(256, ge=2, description="most positions in a row")
    rope_theta: float = Field(10000.0, gt=0, description="base of the rotary wavelengths")
    norm_eps: float = Field(1e-5, gt=0, description="added to the mean square in RMSNorm")
    tied: bool = Field(True, description="the output layer shares the embedding's weights")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ValueError(f"d_model {self.d_model} must be n_heads {self.n_heads} times an even number")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} must be a multiple of n_kv_heads {self.n_kv_heads}")
        return self

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


class Shape(Dimensions):
    """Everything about the network that is not a weight."""

    vocab_size: int = Field(ge=4, description="pieces in the tokenizer")

    @property
    def num_params(self) -> int:
        attention = 2 * self.d_model * self.head_dim * (self.n_heads + self.n_kv_heads)
        block = attention + 3 * self.d_model * self.d_ff + 2 * self.d_model
        return self.vocab_size * self.d_model * (1 if self.tied else 2) + self.n_layers * block + self.d_model
