# SPDX-License-Identifier: Apache-2.0
import pytest

import stack

CHAT_MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=64, seed=3)
NAMES_MODEL = dict(n_embd=16, n_head=4, n_layer=1, block_size=16, chars=stack.models.LETTERS,
                   chat=False, seed=5)
UNICODE_MODEL = dict(n_embd=32, n_head=8, n_layer=2, block_size=48, chars=stack.models.UNICODE, seed=7)


def serve(shape, **more):
    with stack.Stack(stack.model(**shape), **more) as s:
        yield s


@pytest.fixture(scope="module")
def chat_stack():
    """Two sanitized workers with a small chat model behind nginx without limits."""
    yield from serve(CHAT_MODEL)


@pytest.fixture(scope="module")
def names_stack():
    """The same with a model that was not trained for chat."""
    yield from serve(NAMES_MODEL)


@pytest.fixture(scope="module")
def unicode_stack():
    yield from serve(UNICODE_MODEL)
