"""Any order of saying, replacing, undoing and switching agrees with a plain tree."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stored_sessions import begin, last_turns, said, ways

from medchat.api import Turn
from medchat.store import SessionStore


class Node:
    """A turn of the model that the store is compared with."""

    def __init__(self, name: str, before: Node | None) -> None:
        self.name, self.before = name, before
        self.after: list[Node] = []
        self.chosen: Node | None = None
        if before is not None:
            before.after.append(self)


class BranchMachine(RuleBasedStateMachine):
    """Any order of saving, replacing, undoing, bringing back and switching agrees with a plain tree."""

    def __init__(self) -> None:
        super().__init__()
        self.store = SessionStore.unsaved()
        self.session = begin(self.store)
        self.root = Node("", None)
        self.end, self.undone, self.count = self.root, 0, 0

    def teardown(self) -> None:
        self.store.close()

    def line(self) -> list[Node]:
        """The nodes from the first turn to the conversation's end."""
        found, node = [], self.end
        while node.before is not None:
            found.insert(0, node)
            node = node.before
        return found

    @rule(count=st.integers(0, 3))
    def say(self, count: int) -> None:
        taken = min(count, len(self.line()))
        parent = ([self.root, *self.line()])[len(self.line()) - taken]
        self.count += 1
        node = Node(str(self.count), parent)
        expected = last_turns(self.store, self.session, taken) if taken else []
        at = self.store.append_turn(self.session, Turn(node.name, "答"), instead_of=expected)
        parent.chosen, self.end, self.undone = node, node, 0
        assert at == len(self.line())

    @rule(count=st.integers(1, 3))
    def undo(self, count: int) -> None:
        taken = self.store.undo(self.session, count)
        for _ in taken:
            assert self.end.before is not None
            self.end = self.end.before
        self.undone += len(taken)

    @rule(count=st.integers(1, 3))
    def restore(self, count: int) -> None:
        for saved in self.store.restore(self.session, count):
            assert self.end.chosen is not None and self.end.chosen.name == saved.turn.question
            self.end, self.undone = self.end.chosen, self.undone - 1

    @rule()
    def go_round(self) -> None:
        points = self.store.branches(self.session)
        before = said(self.store, self.session)
        several = [point for point in points if point.current is None or len(point.alternatives) > 1]
        assert self.store.switch(self.session) is bool(several)
        if not several:
            return
        after = said(self.store, self.session)
        assert after[: several[-1].position - 1] == before[: several[-1].position - 1] and after != before
        node = self.root
        for name in after:
            child = next(one for one in node.after if one.name == name)
            node.chosen, node = child, child
        self.end, self.undone = node, 0

    @precondition(lambda self: self.store.branches(self.session))
    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        point = data.draw(st.sampled_from(self.store.branches(self.session)))
        way = data.draw(st.integers(0, len(point.alternatives) - 1))
        chosen = self.store.turns_at(point)[way].turn.question
        assert self.store.switch(self.session, (point.position, way))
        if way == point.current:
            return
        parent = ([self.root, *self.line()])[point.position - 1]
        node = next(one for one in parent.after if one.name == chosen)
        parent.chosen, self.undone = node, 0
        while node.chosen is not None:
            node = node.chosen
        self.end = node

    @invariant()
    def the_conversation_and_its_alternatives_are_the_tree_s(self) -> None:
        line = self.line()
        assert said(self.store, self.session) == [node.name for node in line]
        assert [saved.position for saved in self.store.turns(self.session)] == [*range(1, len(line) + 1)]
        places = enumerate(zip([self.root, *line], [*line, None], strict=True), 1)
        expected = {
            place: ([node.name for node in parent.after], parent.after.index(node) if node else None)
            for place, (parent, node) in places
            if [one for one in parent.after if one is not node]
        }
        assert ways(self.store, self.session) == expected
        assert len(self.store.others(self.session)) == self.count - len(line)


TestBranchMachine = BranchMachine.TestCase
