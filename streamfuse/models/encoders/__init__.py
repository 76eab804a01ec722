"""Encoders: one modality's items in, tokens out. A new one is a new file in this folder.

An encoder is an `nn.Module` registered with `ENCODERS`, made with `features` and its own options. It takes a `Modality`
and gives one whose `data` is `(batch, tokens, features)`. What is masked out never changes what is not, and no answer
depends on what else is in the batch. No Python branch depends on data, so that every encoder exports.

Its `scope` says what a token depends on, and so what serving may keep for overlapping windows:

- `item`: on its own item alone, one token an item.
- `causal`: on its item and those before it, at most `context` of them. It also has `begin(batch)`, the state before the
  first item, and `step(items, state)`, which gives the tokens of the next items and the state after them; `forward` is
  `step` from `begin`. Items come in multiples of `stride`, the items of one token. A state is tensors whose first dimension is
  the batch. Without a `context` (None: all that was before counts) it is served like `window`.
- `window`: on the whole window. Nothing is kept.

An encoder of token ids has `vocabulary`, more than the greatest of them. One that was made from a folder elsewhere has `packed`, the
options that make it again without (so has its preprocessing), and bundles have those.

What a token says does not depend on its items' times, which count from the window's end; its `time` is made of them.
"""
