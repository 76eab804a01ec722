"""Fusions: the tokens of any subset of modalities in, one vector out. A new one is a new file in this folder.

A fusion is an `nn.Module` registered with `FUSIONS`, made with `streams`, `features` and its own options. It takes a
mapping of every stream to a `Modality` with `(batch, tokens, features)`, in any order, and gives `(batch, features)`.
What is masked out does not count, and with nothing present at all the answer is still finite. No Python branch depends
on data, so that every fusion exports.

Its `missing` says in a few words how it treats a modality that is not there. A fusion whose answer is a weighted one
has `weigh(tokens)` as well, which gives each modality's weight, `(batch, streams)` in the order of `streams`, zero where
it is absent.
"""
