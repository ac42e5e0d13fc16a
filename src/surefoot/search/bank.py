"""The bank of a search: the methods that its draws are made of, any subset of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.errors import RecipeError, nearest
from surefoot.registry import get, methods

#: AutoFT's: cross-entropy weighs 1, the others are drawn.
AUTOFT = (
    "cross_entropy",
    "hinge",
    "entropy",
    "confidence_minimization",
    "flyp",
    "l1_zero",
    "l2_zero",
    "l1_start",
    "l2_start",
)
#: Beside them one method of each way to be robust that costs at most two passes and suits any labelled text: smoothness
#: (SMART), label noise (ELR), easy examples (focal), self-distillation (PS-KD); flatness (SAM) and sign updates (Lion);
#: the weights that may move (LoRA, Mixout, half fine-tuning). Chosen by what they are for, not by how they did here.
WIDE = (*AUTOFT, "smart", "elr", "focal", "ps_kd", "sam", "lion", "lora", "mixout", "hft")
#: For embeddings: pairs, what holds the weights or the features at their start, what spreads features, flatness.
EMBEDDING = ("infonce", "l1_zero", "l2_zero", "l1_start", "l2_start", "ldifs")
#: Banks that have a name.
BANKS = {"autoft": AUTOFT, "wide": WIDE, "embedding": EMBEDDING}
#: What a bank may hold, in the order in which an unqualified name is looked up.
KINDS = ("objective", "optimizer", "selection", "reducer")


@dataclass(frozen=True)
class Bank:
    """Names by kind. AutoFT's objectives are weighed all together; of the others, and of each other kind, a draw takes one
    or what is usual (see `search/space.py`)."""

    objectives: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    selections: tuple[str, ...] = ()
    reducers: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> Bank:
        """From names of methods, `kind/name` where two kinds share one, and names of banks; RecipeError for others.

        >>> Bank.of(["cross_entropy", "l2_sp", "sam", "selection/lora"])
        Bank(objectives=('cross_entropy', 'l2_sp'), optimizers=('sam',), selections=('lora',), reducers=())
        >>> Bank.of(["smrt"])
        Traceback (most recent call last):
        surefoot.errors.RecipeError: the bank has no `smrt`: did you mean `smart`?
        """
        if not names:
            raise RecipeError("the bank is empty: name at least one objective, such as cross_entropy")
        found: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for each in (each for name in names for each in BANKS.get(name, (name,))):
            kind, own = _kind(each)
            if own not in found[kind]:
                found[kind].append(own)
        for own in found["selection"]:
            if get("selection", own).make.keeps:
                raise RecipeError(
                    f"`{own}` of the bank puts parts into the model that stay there, and a search averages models of the same parts: leave it out, or choose lora"
                )
        return cls(*(tuple(found[kind]) for kind in KINDS))

    @property
    def switched(self) -> frozenset[str]:
        """Objectives of which a draw takes one or none: those beyond AutoFT's and an embedding's. They cost passes of their own, whatever they weigh."""
        return frozenset(self.objectives) - frozenset(AUTOFT) - frozenset(EMBEDDING)

    @property
    def conditional(self) -> bool:
        """Whether some hyperparameters exist only beside certain draws of others."""
        return bool(self.switched or self.optimizers or self.selections or self.reducers)

    def suited(self, *, text: bool, groups: bool) -> Bank:
        """Without objectives that read the labels' texts, for a model that does not read.

        RecipeError for methods that need groups which the data do not have: they were asked for by name.
        """
        for kind, names in (("objective", self.objectives), ("reducer", self.reducers)):
            for name in names:
                if not groups and "group" in getattr(get(kind, name).make, "needs", ()):
                    raise RecipeError(
                        f"`{name}` of the bank needs groups, and the training data have no `group` column: add one, or leave it out"
                    )
        able = [name for name in self.objectives if text or "label_texts" not in get("objective", name).make.needs]
        return Bank(tuple(able), self.optimizers, self.selections, self.reducers)


def _kind(name: str) -> tuple[str, str]:
    kind, slash, own = name.partition("/")
    if slash and kind in KINDS:
        return kind, get(kind, own).name
    known = {method.name: kind for kind in reversed(KINDS) for method in methods(kind)}
    if name not in known:
        raise RecipeError(f"the bank has no `{name}`: {nearest(name, [*known, *BANKS])}")
    return known[name], name
