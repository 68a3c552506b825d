"""Cache: the keys and values of rows that are written together; rows join and leave between steps.

In:   packed weights; prefixes that join; one id a row at each step; which rows stay
Out:  logits of every row's next position, float32 (B, V)
On:   lib/model/packed.py

Rows stand at the right edge: all write their next key and value into the same column, `column`, and a row that joins
later, or is shorter, has padding on its left. What no row needs any more on the left is not read, and makes room when
the edge reaches the end. A row's positions, and so its rotations, are its own.

Keys are stored transposed, (C, S): scores are then a product of two matrices as they lie. Values lie the same way where
heads are narrow: at 8 channels both products took 180 µs instead of 224 (64 rows, 220 columns), at 48 up to twice more.

Letters: B rows, U new rows, T positions of their prefixes, S columns so far, D width, G groups (key and value heads),
R query heads a group, H = R + 2, C channels of a head, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.model.packed import Packed

BLOCKED = -1e9  # added to the score of a position that may not be seen; finite, so that a row of padding has no NaN
NARROW = 16  # channels of a head, up to which values lie as keys do
SPARE = 64  # columns that a cache grows by, at least: each growth copies it
FEW = 26  # columns that are read at least, blocked where empty: small products are slow, 34 µs at 20 columns, 22 at 100


class Cache:
    """Empty at first. Every method expects torch.inference_mode."""

    def __init__(self, weights: Packed, *, rows: int = 1, columns: int = SPARE) -> None:
        """`rows`, `columns`: room to begin with; it grows as needed, each time by half or more."""
        shape = weights.shape
        self.weights, self.shape, self.device = weights, shape, weights.device
        self.groups, self.repeats = shape.n_kv_heads, shape.n_heads // shape.n_kv_heads
        self.column, self.left, self.pads = 0, 0, []  # pads: the first column of each row
        self.keys, self.values = self._room(rows, columns)
        self.padding_BS = torch.zeros(rows, columns, dtype=weights.dtype, device=self.device)
        self.pad_B = torch.zeros(0, dtype=torch.long, device=self.device)

    def __len__(self) -> int:
        return len(self.pads)

    def join(self, prefixes: Sequence[Sequence[int]]) -> Tensor:
        """New rows behind those here: logits of what follows each prefix, (U, V). Equal prefixes are computed once."""
        different = {tuple(prefix): n for n, prefix in enumerate(dict.fromkeys(map(tuple, prefixes)))}
        logits_UV, keys, values = self._read(list(different))
        places = torch.tensor([different[tuple(prefix)] for prefix in prefixes], device=self.device)
        B, T = len(self), keys.shape[-1]
        edge = max(T, FEW, self.column)
        self._make_room(B + len(prefixes), edge)
        if self.column < edge:  # it moves to the right, and what is here with it
            self._move(edge - self.column)
        new, edge = slice(B, B + len(prefixes)), slice(self.column - T, self.column)
        self.keys[:, new, :, :, edge] = keys[:, places]
        self.values[:, new, :, edge] = values[:, places]
        self.pads += [self.column - len(prefix) for prefix in prefixes]
        self._count_padding()
        columns_S = torch.arange(self.padding_BS.shape[1], device=self.device)
        self.padding_BS[new] = torch.where(columns_S < self.pad_B[new, None], BLOCKED, 0.0).to(self.weights.dtype)
        return logits_UV[places]

    def keep(self, stays: Sequence[bool]) -> list[int]:
        """Only these rows stay: rows from the end move into the places of those that go. Which old row is where now."""
        order = [row for row, stay in enumerate(stays) if stay]
        B = len(order)
        movers, holes = [row for row in order if row >= B], [row for row in range(B) if not stays[row]]
        order = list(range(B))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        if holes:
            to, come = torch.tensor(holes, device=self.device), torch.tensor(movers, device=self.device)
            span = slice(self.left, self.column)
            self.keys[:, to, :, :, span] = self.keys[:, come, :, :, span]
            self.values[:, to, :, span] = self.values[:, come, :, span]
            self.padding_BS[to] = self.padding_BS[come]
        self.pads = [self.pads[row] for row in order]
        self._count_padding()
        return order

    def step(self, ids_B: Tensor) -> Tensor:
        """Take in one id a row; logits of the next, (B, V)."""
        if self.column == self.padding_BS.shape[1] <= 2 * self.left:
            self._move(-self.left)
        self._make_room(len(self), self.column + 1)
        weights, B, here = self.weights, len(self), self.column
        self.column += 1
        left, place = max(min(self.left, self.column - FEW), 0), here - self.left
        S, heads = self.column - left, self.repeats + 2
        turns_B1HC = weights.turns_SHC[here - self.pad_B if self.padded else slice(place, place + 1), None]
        blocked = self.padding_BS[:B, None, left : self.column] if self.padded or left < self.left else None
        keys, values = self.keys[:, :B], self.values[:, :B]
        spans = zip(
            keys[..., here].unbind(0),
            values[:, :, :, here].unbind(0),
            keys[..., left : self.column].view(-1, B * self.groups, self.shape.head_dim, S).unbind(0),
            values[:, :, :, left : self.column].view(-1, B * self.groups, S, self.shape.head_dim).unbind(0),
            weights.layers,
            strict=True,
        )
        x_BD = F.embedding(ids_B, weights.embedding)
        for key_BGC, value_BGC, keys_NCS, values_NSC, (wqkv, wo, w13, w2) in spans:
            qkv = (weights.norm(x_BD) @ wqkv).view(B, self.groups, heads, -1)
            turned = weights.turn(qkv, turns_B1HC)
            key_BGC.copy_(turned.select(2, -2))
            value_BGC.copy_(turned.select(2, -1))
            q_NRC = turned.view(B * self.groups, heads, -1).narrow(1, 0, self.repeats)
            scores = torch.bmm(q_NRC, keys_NCS)
            if blocked is not None:
                scores.view(B, -1, S).add_(blocked)
            mixed_NRC = torch.bmm(scores.softmax(-1), values_NSC)
            self._forward(x_BD.addmm_(mixed_NRC.view(B, -1), wo), w13, w2)
        return (weights.norm(x_BD) @ weights.output).float()

    def _read(self, prefixes: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
        """The prefixes from their start: logits behind each, keys (layers, U, G, C, T), values (layers, U, G, T, C)."""
        weights, U, T = self.weights, len(prefixes), max(map(len, prefixes))
        pad_U = torch.tensor([T - len(prefix) for prefix in prefixes], device=self.device)
        ids_UT = torch.tensor([(0,) * (T - len(prefix)) + prefix for prefix in prefixes], device=self.device)
        columns_T = torch.arange(T, device=self.device)
        turns_N1HC = weights.turns_SHC[(columns_T - pad_U[:, None]).clamp(min=0).flatten(), None]
        later_TT = columns_T > columns_T[:, None]
        hidden_UTT = later_TT | (columns_T < pad_U[:, None])[:, None]
        blocked = torch.zeros(U, 1, T, T, dtype=weights.dtype, device=self.device)
        blocked.masked_fill_(hidden_UTT[:, None], BLOCKED)
        x_ND = F.embedding(ids_UT.flatten(), weights.embedding)
        keys, values = [], []
        for wqkv, wo, w13, w2 in weights.layers:
            qkv = (weights.norm(x_ND) @ wqkv).view(U * T, self.groups, self.repeats + 2, -1)
            turned = weights.turn(qkv, turns_N1HC).view(U, T, *qkv.shape[1:])
            q_UHTC = turned[:, :, :, :-2].flatten(2, 3).transpose(1, 2)
            k_UGTC, v_UGTC = turned[:, :, :, -2].transpose(1, 2), turned[:, :, :, -1].transpose(1, 2)
            grouped = self.repeats > 1
            mixed = F.scaled_dot_product_attention(q_UHTC, k_UGTC, v_UGTC, blocked, scale=1.0, enable_gqa=grouped)
            self._forward(x_ND.addmm_(mixed.transpose(1, 2).reshape(U * T, -1), wo), w13, w2)
            keys.append(k_UGTC.transpose(2, 3))
            values.append(v_UGTC)
        logits_UV = (weights.norm(x_ND.view(U, T, -1)[:, -1]) @ weights.output).float()
        return logits_UV, torch.stack(keys), torch.stack(values)

    def _forward(self, x_ND: Tensor, w13: Tensor, w2: Tensor) -> None:
        """The feed-forward half of a layer, added to x_ND in place."""
        gate, up = torch.mm(self.weights.norm(x_ND), w13).tensor_split(2, 1)
        x_ND.addmm_(F.silu(gate).mul_(up), w2)

    def _count_padding(self) -> None:
        self.left = min(self.pads, default=self.column)
        self.padded = any(pad > self.left for pad in self.pads)
        self.pad_B = torch.tensor(self.pads, dtype=torch.long, device=self.device)

    def _make_room(self, rows: int, columns: int) -> None:
        """At least so much room; what is grown is grown by half or more, because it is copied."""
        room_B, room_S = self.padding_BS.shape
        if rows <= room_B and columns <= room_S:
            return
        rows = room_B if rows <= room_B else max(rows, room_B + room_B // 2)
        columns = room_S if columns <= room_S else max(columns, room_S + max(room_S // 2, SPARE))
        old_keys, old_values, old_padding = self.keys, self.values, self.padding_BS
        self.keys, self.values = self._room(rows, columns)
        self.padding_BS = torch.zeros(rows, columns, dtype=self.weights.dtype, device=self.device)
        here, span = slice(len(self)), slice(self.left, self.column)
        self.keys[:, here, :, :, span] = old_keys[:, here, :, :, span]
        self.values[:, here, :, span] = old_values[:, here, :, span]
        self.padding_BS[here, : self.column] = old_padding[here, : self.column]

    def _move(self, by: int) -> None:
        """Everything by so many columns to the right (or, negative, to the left); there is room for it."""
        here, span, there = slice(len(self)), slice(self.left, self.column), slice(self.left + by, self.column + by)
        self.keys[:, here, :, :, there] = self.keys[:, here, :, :, span].clone()
        self.values[:, here, :, there] = self.values[:, here, :, span].clone()
        self.column += by
        self.pads = [pad + by for pad in self.pads]
        self._count_padding()
        columns_S = torch.arange(self.padding_BS.shape[1], device=self.device)
        self.padding_BS[here] = torch.where(columns_S < self.pad_B[:, None], BLOCKED, 0.0).to(self.weights.dtype)

    def _room(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Zeros: what was never written is multiplied by a weight of 0, and must be finite."""
        shape = self.shape
        sizes = {"dtype": self.weights.dtype, "device": self.device}
        keys = torch.zeros(shape.n_layers, rows, self.groups, shape.head_dim, columns, **sizes)
        if shape.head_dim <= NARROW:
            return keys, torch.zeros_like(keys).transpose(3, 4)
        return keys, torch.zeros(shape.n_layers, rows, self.groups, columns, shape.head_dim, **sizes)
