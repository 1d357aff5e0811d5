"""Archives of landed files: read as the files were, never without one, and damage is a file's own."""

import os
import random
import subprocess
import sys
import tarfile
from datetime import UTC, datetime, timedelta

import pytest

from extract.core.interval import Interval, iso
from extract.core.quarantine import quarantined
from extract.core.sealed import Damaged
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import archives, landing
from extract.fetch.archive_file import BLOCK, Member, read_index
from extract.fetch.archives import Month

JANUARY = Month("coinbase", "2025-01")
LATER = datetime(2025, 6, 1, tzinfo=UTC)
OLD = datetime(2025, 2, 1, tzinfo=UTC).timestamp()


def land(root, day: int, n: int = 0, *, text: str = "x"):
    """One landed file of a day of January, as a load has left it: (file, its digest)."""
    interval = Interval(f"2025-01-{day:02d}T{n:02d}:00:00", f"2025-01-{day:02d}T{n + 1:02d}:00:00")
    job = Job("coinbase", "main", "c", interval, interval.start)
    body = f'{{"data": ["{text}{random.Random(day).getrandbits(4000)}"]}}'
    fetched = Fetched([Page("/x", {}, body, interval.end)], [Covered("x", interval, "end")])
    file = landing.write(root, job, fetched, {"run_id": iso(interval.start)})
    landing.archive(root, [file])
    file = root / "coinbase" / "2025-01" / file.name
    os.utime(file, (OLD, OLD))
    return file


def note(root, files):
    for file in files:
        number = len(landing.loads(root)) + 1
        digests = {file.name: landing.inspect(file)}
        landing.note_load(root, landing.Load(number, file.name, LATER, (file.name,), digests))


@pytest.fixture
def root(tmp_path):
    """A landing with four files of January that are loaded."""
    root = tmp_path / "landing"
    note(root, [land(root, day) for day in (3, 9, 17, 30)])
    return root


def pack(root, older_than=LATER):
    return [
        archives.pack(root, month, older_than, landing.loads(root))
        for month in archives.due(root, older_than)
    ]


def contents(root):
    """Every loaded file's bytes by name, wherever they are; each is as it was noted."""
    digests = {name: d for load in landing.loads(root) for name, d in load.digests.items()}
    found = {}
    for name, file in archives.kept(root).items():
        assert archives.inspect(file, digests.get(name)) == digests.get(name)
        found[name] = b"".join(file.chunks()) if isinstance(file, Member) else file.read_bytes()
    return found


def loose(root):
    return sorted(landing.archived(root))


def test_a_months_files_become_one_archive_that_tar_can_open(root, tmp_path):
    before = contents(root)
    (done,) = pack(root)
    assert (done.files, done.bytes) == (4, sum(map(len, before.values()))) and not done.left
    assert contents(root) == before and loose(root) == []
    assert [*root.rglob("*.part"), *root.glob("coinbase/2025-01")] == [], "the folder went too"
    (archive,) = archives.archives(root)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").glob("*.zst")} == before
    assert pack(root) == [], "and nothing is left to do"
    with archives.extracted([*archives.kept(root).values()], tmp_path / "scratch") as paths:
        assert {path.name: path.read_bytes() for path in paths} == before
        assert all(landing.header(path)["source"] == "coinbase" for path in paths)
    assert not any((tmp_path / "scratch").iterdir())


def test_what_comes_later_is_added_and_the_same_files_are_the_same_archive(root, tmp_path):
    pack(root)
    note(root, [land(root, 12), land(root, 13)])
    before = contents(root)
    assert len(before) == 6
    pack(root)
    (one,) = archives.archives(root)
    assert contents(root) == before and loose(root) == []
    other = tmp_path / "other"
    note(other, [land(other, day) for day in (12, 30, 13, 9, 3, 17)])
    pack(other)
    assert archives.archives(other)[0].name == one.name, "of whatever order and time"


def test_only_old_loaded_files_of_a_month_that_is_over_are_packed(root):
    first = landing.archived(root)[loose(root)[0]]
    os.utime(first)  # read again a moment ago
    unknown = land(root, 20)
    assert archives.due(root, datetime(2025, 2, 1, tzinfo=UTC)) == []  # none is old yet
    for file in landing.archived(root).values():
        if file != first:
            os.utime(file, (OLD - 20 * 86400, OLD - 20 * 86400))
    assert archives.due(root, datetime(2025, 1, 31, tzinfo=UTC)) == []  # the month goes on
    assert archives.due(root, LATER) == [JANUARY]
    pack(root)
    assert loose(root) == sorted([first.name, unknown.name])
    young = datetime.now(UTC) + timedelta(days=1)
    pack(root, young)
    assert loose(root) == [unknown.name], "no load lists it: a replay could not place it"


def test_a_damaged_file_is_not_packed_and_a_good_copy_cures_the_archive(root):
    before = contents(root)
    name = loose(root)[1]
    file = landing.archived(root)[name]
    file.write_bytes(before[name][:-3])
    os.utime(file, (OLD, OLD))
    (done,) = pack(root)
    assert done.files == 3 and list(done.left) == [name] and "SHA-256" in done.left[name]
    file.write_bytes(before[name])  # from a backup
    os.utime(file, (OLD, OLD))
    pack(root)
    assert contents(root) == before
    # Damaged in the archive, and brought back beside it.
    member = archives.kept(root)[name]
    spoil(member.archive, member.offset + 5)
    with pytest.raises(Damaged, match="SHA-256 in 2025-01~"):
        archives.inspect(archives.kept(root)[name])
    file.parent.mkdir()
    file.write_bytes(before[name])
    os.utime(file, (OLD, OLD))
    pack(root)
    assert contents(root) == before and loose(root) == [] and not list(archives.damage(root))


def spoil(file, place, bit=3):
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << bit
    file.write_bytes(data)


def test_every_flipped_bit_of_an_archive_is_named_by_file_and_spares_the_others(root):
    pack(root)
    before, (archive,) = contents(root), archives.archives(root)
    whole, rng = archive.read_bytes(), random.Random(3)
    members = {m.name: m for m in read_index(archive) if isinstance(m, Member)}
    places = [rng.randrange(len(whole)) for _ in range(150)]
    places += [rng.randrange(2 * BLOCK) for _ in range(150)]  # of the index
    for place in places:
        spoil(archive, place, rng.randrange(8))
        named = {what for _, what in archives.damage(root)}
        assert named, place
        there, damaged = archives.kept(root), set()
        for name, file in there.items():
            try:
                archives.inspect(file)
            except Damaged:
                damaged.add(name)
        hit = {n for n, m in members.items() if m.offset <= place < m.offset + m.size}
        assert damaged == hit, place
        lost = before.keys() - there.keys()
        assert len(lost) <= 2, "a line of the index, or two where what parts them is damaged"
        assert not (lost and damaged)
        archive.write_bytes(whole)
    assert contents(root) == before


def test_damaged_files_go_to_quarantine_by_name_and_the_others_stay(root):
    pack(root)
    before = contents(root)
    first, second, *rest = sorted(before)
    member = archives.kept(root)[first]
    spoil(member.archive, member.offset)
    archives.put_aside(root, {first: "a bit"})
    assert [(f.name, why) for f, why, _ in quarantined(root)] == [(first, "a bit")]
    assert sorted(contents(root)) == [second, *rest] and not list(archives.damage(root))
    # A line of the index: the archive goes there as it was, its other files are in a new one.
    (archive,) = archives.archives(root)
    spoil(archive, BLOCK + 20)
    archives.put_aside(root, {second: "its line is damaged"})
    assert {f.name for f, _, _ in quarantined(root)} == {first, archive.name}
    assert sorted(contents(root)) == rest and not list(archives.damage(root))
    # And one that is cut off: what there is of its files, each by its name.
    (archive,) = archives.archives(root)
    os.truncate(archive, archives.kept(root)[rest[-1]].offset + 9)
    with pytest.raises(Damaged, match="ends before"):
        archives.inspect(archives.kept(root)[rest[-1]])
    archives.put_aside(root, {rest[-1]: "cut"})
    assert sorted(contents(root)) == rest[:-1]
    assert {f.name: f.stat().st_size for f, _, _ in quarantined(root)}[rest[-1]] == 9


@pytest.mark.parametrize("harm", ["empty", "foreign", "no index"])
def test_an_archive_that_is_none_is_named_and_nothing_is_added_to_it(root, harm):
    pack(root)
    (archive,) = archives.archives(root)
    whole = archive.read_bytes()
    archive.write_bytes({"empty": b"", "foreign": b"PK\3\4" * 999, "no index": whole[:BLOCK]}[harm])
    assert archives.kept(root) == {}
    assert [at for at, _ in archives.damage(root)] == [archive]
    note(root, [land(root, 20)])
    before = archive.read_bytes()
    with pytest.raises(Damaged, match="no index"):
        pack(root)
    assert archive.read_bytes() == before and len(loose(root)) == 1


# --- kills ----------------------------------------------------------------------------------------

# Dies like a kill (no handler runs) at the n-th call that reaches the disk; 0: says how many it is.
DIE = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from extract.fetch import archives, landing

root, n, work = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
loads, calls = landing.loads(root), 0
DISK = {"open", "write", "writelines", "flush", "close", "fsync", "replace", "rename", "unlink",
        "rmdir", "mkdir", "remove"}

def count(frame, event, called):
    global calls
    if event in ("c_call", "c_return") and called.__name__ in DISK:
        calls += 1
        if calls == n:
            os._exit(9)

later = datetime(2025, 6, 1, tzinfo=UTC)
if work == "pack":
    run = lambda: [archives.pack(root, m, later, loads) for m in archives.due(root, later)]
else:
    run = lambda: archives.put_aside(root, {work: "why"})
if n < 0:  # all of them, each in a fork with a landing of its own
    import shutil
    total = -n
    for number in range(1, total + 1):
        copy = root.with_name(f"killed{number}")
        shutil.copytree(root, copy)
        child = os.fork()
        if not child:
            root, n = copy, number
            sys.setprofile(count)
            run()
            os._exit(0)
        os.waitpid(child, 0)
else:
    sys.setprofile(count)
    run()
    sys.setprofile(None)
    print(calls)
"""


def killed_everywhere(root, tmp_path, work):
    """Landings of which each was killed at another call of the work."""
    template, counted = tmp_path / "template", tmp_path / "counted"
    for copy in (template, counted):
        subprocess.run(["cp", "-a", root, copy], check=True)

    def run(where, n):
        command = [sys.executable, "-c", DIE, str(where), str(n), work]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    calls = int(run(counted, 0))
    assert calls > 40
    run(template, -calls)
    for number in range(1, calls + 1):
        yield number, tmp_path / f"killed{number}"


@pytest.mark.slow
def test_a_kill_at_any_call_of_packing_loses_and_doubles_no_file(root, tmp_path):
    pack(root)
    note(root, [land(root, 12), land(root, 13)])  # so that an archive is replaced, too
    before, stages = contents(root), set()
    for number, lived in killed_everywhere(root, tmp_path, "pack"):
        assert contents(lived) == before, f"killed at call {number}"
        stages.add((len(archives.archives(lived)), len(loose(lived))))
        pack(lived)
        assert contents(lived) == before, f"killed at call {number}, gone on with"
        assert (len(archives.archives(lived)), loose(lived)) == (1, [])
        (archive,) = archives.archives(lived)
        assert len(list(read_index(archive))) == len(before), "each file once"
    assert {(1, 2), (2, 2), (1, 1), (1, 0)} <= stages, "it died before, between and after"


@pytest.mark.slow
def test_a_kill_at_any_call_of_putting_aside_loses_no_other_file(root, tmp_path):
    pack(root)
    before = contents(root)
    name = sorted(before)[1]
    member = archives.kept(root)[name]
    spoil(member.archive, member.offset)
    rest = {other: data for other, data in before.items() if other != name}
    for number, lived in killed_everywhere(root, tmp_path, name):
        there = archives.kept(lived)
        for other in rest:
            archives.inspect(there[other])
        assert name in there or [f.name for f, _, _ in quarantined(lived)] == [name]
        if name in there:
            archives.put_aside(lived, {name: "why"})
        assert contents(lived) == rest, f"killed at call {number}"
        assert name in [f.name for f, _, _ in quarantined(lived)]
