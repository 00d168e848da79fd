"""What a checkpoint means: variants by name, file, ending or folder, and nothing by guessing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import NotInRepository
from lemonade.planning.checkpoint import (
    FileKind,
    RepoFile,
    RepoListing,
    plan_checkpoint,
    registry_of,
    select_files,
    split_checkpoint,
)
from lemonade.planning.gguf import (
    drafts,
    enumerate_variants,
    family_of,
    missing_parts,
    projectors,
    quant_of,
    shard_of,
    unsharded_stem,
)


def files(*paths: str) -> tuple[RepoFile, ...]:
    return tuple(RepoFile(path, size) for size, path in enumerate(paths, start=1))


def chosen(paths: tuple[str, ...], variant: str, kind: FileKind = "gguf") -> list[str]:
    return [file.path for file in select_files(files(*paths), variant, kind=kind, where="o/r")]


def named(*paths: str) -> list[str]:
    return [variant.name for variant in enumerate_variants(files(*paths))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/r", ("o/r", "")),
        ("o/r:Q4_K_M", ("o/r", "Q4_K_M")),
        (" o/r : Q4_K_M ", ("o/r", "Q4_K_M")),
        ("o/r:a:b", ("o/r", "a:b")),
        ("o/r:sub/file.gguf", ("o/r", "sub/file.gguf")),
        ("https://huggingface.co/o/r", ("o/r", "")),
        ("http://huggingface.co/o/r/tree/main", ("o/r", "")),
        ("https://huggingface.co/o/r:Q8_0", ("o/r", "Q8_0")),
        ("https://modelscope.cn/models/o/r", ("o/r", "")),
        ("https://www.modelscope.ai/models/o/r:Q8_0", ("o/r", "Q8_0")),
        ("/models/a:b.gguf", ("/models/a:b.gguf", "")),
        ("", ("", "")),
    ],
)
def test_split(text: str, expected: tuple[str, str]) -> None:
    assert split_checkpoint(text) == expected


def test_pages_say_their_registry() -> None:
    assert registry_of("https://huggingface.co/o/r") == "huggingface"
    assert registry_of("https://modelscope.cn/models/o/r") == "modelscope"
    assert registry_of("https://example.com/o/r") == ""
    assert registry_of("o/r:Q4_0") == ""


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen3-8b-q4_k_m.gguf", "Q4_K_M"),
        ("m.Q4_K_M.gguf", "Q4_K_M"),
        ("m_Q8_0.gguf", "Q8_0"),
        ("Q4_0.gguf", "Q4_0"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-UD_IQ2_M.gguf", "UD_IQ2_M"),
        ("m-IQ4_XS.gguf", "IQ4_XS"),
        ("m-IQ4_NL.gguf", "IQ4_NL"),
        ("m-IQ3_XXS.gguf", "IQ3_XXS"),
        ("m-Q2_K.gguf", "Q2_K"),
        ("m-Q2_K_L.gguf", "Q2_K_L"),
        ("m-Q1_0.gguf", "Q1_0"),
        ("m-Q3_K_XXL.gguf", "Q3_K_XXL"),
        ("m-BF16.gguf", "BF16"),
        ("m-f16.gguf", "F16"),
        ("m-F32-00001-of-00002.gguf", "F32"),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("m-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("Q4_K_M", "Q4_K_M"),
        ("model.gguf", ""),
        ("mQ4_0.gguf", ""),
        ("m-Q4_0x.gguf", "Q4"),
        ("m-XQ4_0.gguf", ""),
        ("m-F64.gguf", ""),
        ("Q4", "Q4"),
    ],
)
def test_quantisations(name: str, quant: str) -> None:
    assert quant_of(name) == quant


def test_variants_of_a_usual_repository() -> None:
    found = enumerate_variants(
        files(
            "m-BF16.gguf",
            "m-Q8_0.gguf",
            "m-Q4_0.gguf",
            "m-UD-Q4_K_XL.gguf",
            "m-Q4_K_M.gguf",
            "m-IQ4_XS.gguf",
            "mmproj-F16.gguf",
            "dflash-kquant.gguf",
            "mtp-m.gguf",
            "config.json",
            "README.md",
        )
    )
    order = ["Q4_K_M", "UD-Q4_K_XL", "Q8_0", "Q4_0", "BF16", "IQ4_XS"]
    assert [variant.name for variant in found] == order
    assert all(variant.quant == variant.name for variant in found)
    assert not any(variant.sharded for variant in found)
    assert found[0].primary == "m-Q4_K_M.gguf"
    assert found[0].size_bytes == 5


def test_companions_are_listed_apart() -> None:
    held = files("x/mmproj-b.gguf", "mmproj-a.gguf", "dflash.gguf", "mtp-m.gguf", "m-Q4_0.gguf")
    assert projectors(held) == ("mmproj-a.gguf", "mmproj-b.gguf")
    assert drafts(held) == ("dflash.gguf", "mtp-m.gguf")


def test_folders_are_variants() -> None:
    found = enumerate_variants(
        files(
            "BF16/m-BF16-00001-of-00002.gguf",
            "BF16/m-BF16-00002-of-00002.gguf",
            "Special/deep/m.gguf",
            "m-Q8_0.gguf",
        )
    )
    assert [(v.name, v.quant, v.sharded) for v in found] == [
        ("Q8_0", "Q8_0", False),
        ("BF16", "BF16", True),
        ("Special", "", True),
    ]
    assert found[1].primary == "BF16/m-BF16-00001-of-00002.gguf"
    assert len(found[1].files) == 2


def test_parts_at_the_root_are_one_variant() -> None:
    (only,) = enumerate_variants(files(*[f"m-Q4_0-0000{i}-of-00003.gguf" for i in (3, 1, 2)]))
    assert only.name == "Q4_0"
    assert only.sharded
    assert only.primary == "m-Q4_0-00001-of-00003.gguf"


def test_a_quantisation_that_occurs_twice_names_neither() -> None:
    assert named("a-Q4_0.gguf", "b-Q4_0.gguf", "c-Q8_0.gguf") == ["Q8_0", "a-Q4_0", "b-Q4_0"]
    assert named("Q4_0/x.gguf", "b-Q4_0.gguf") == ["Q4_0", "b-Q4_0"]


def test_unnamed_files_only_count_where_nothing_is_named() -> None:
    assert named("model.gguf", "other.gguf") == ["model.gguf", "other.gguf"]
    assert named("model.gguf", "m-Q4_0.gguf") == ["Q4_0"]
    assert named("m-00001-of-00002.gguf", "m-00002-of-00002.gguf") == ["m-00001-of-00002.gguf"]
    assert named() == []
    assert named("mmproj.gguf", "README.md") == []


MANY = (
    "m-Q4_K_M.gguf",
    "m-Q8_0.gguf",
    "UD-Q6_K/m-00001-of-00002.gguf",
    "UD-Q6_K/m-00002-of-00002.gguf",
    "extra-Q5_0/m.gguf",
    "mmproj-Q8_0.gguf",
    "config.json",
)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("Q4_K_M", ["m-Q4_K_M.gguf"]),
        ("q4_k_m", ["m-Q4_K_M.gguf"]),
        ("m-Q4_K_M.gguf", ["m-Q4_K_M.gguf"]),
        ("m-Q4_K_M", ["m-Q4_K_M.gguf"]),
        ("4_K_M", ["m-Q4_K_M.gguf"]),
        ("Q8_0", ["m-Q8_0.gguf"]),
        ("UD-Q6_K", list(MANY[2:4])),
        ("UD-Q6_K/m-00001-of-00002.gguf", list(MANY[2:4])),
        ("extra-Q5_0", ["extra-Q5_0/m.gguf"]),
        ("Q5_0", ["extra-Q5_0/m.gguf"]),
        ("*", sorted(path for path in MANY if path.endswith(".gguf"))),
    ],
)
def test_gguf_selection(variant: str, expected: list[str]) -> None:
    assert chosen(MANY, variant) == expected


def test_a_folder_by_the_end_of_its_name() -> None:
    assert chosen(("Mine-special/a.gguf", "Mine-other/b.gguf"), "special") == [
        "Mine-special/a.gguf"
    ]
    with pytest.raises(NotInRepository, match="several"):
        chosen(("a-x/a.gguf", "b_x/b.gguf"), "x")


@pytest.mark.parametrize("variant", ["Q2_K", "m-Q2_K.gguf", "nothing.bin", "mmproj"])
def test_what_is_not_there_is_told_with_what_is(variant: str) -> None:
    with pytest.raises(NotInRepository) as caught:
        chosen(MANY, variant)
    assert "m-Q4_K_M.gguf" in caught.value.remedy or "Q4_K_M" in caught.value.remedy
    assert caught.value.facts["variants"]


def test_an_ambiguous_variant_lists_what_it_could_be() -> None:
    with pytest.raises(NotInRepository, match="several files") as caught:
        chosen(("a-x.gguf", "b-x.gguf"), "x")
    assert caught.value.facts["variants"] == ["a-x.gguf", "b-x.gguf"]
    with pytest.raises(NotInRepository, match="several files"):
        chosen(("a-Q4_0/m.gguf", "b-Q4_0/m.gguf"), "Q4_0")


def test_no_variant_is_fine_where_there_is_one() -> None:
    assert chosen(("m-MXFP4.gguf", "README.md"), "") == ["m-MXFP4.gguf"]
    with pytest.raises(NotInRepository, match="names none") as caught:
        chosen(MANY, "")
    assert "o/r:Q4_K_M" in caught.value.remedy
    with pytest.raises(NotInRepository, match="no GGUF"):
        chosen(("model.safetensors",), "")


def test_whole_repositories_and_parts_of_them() -> None:
    held = (".gitattributes", "config.json", "m.safetensors", "tiny/a.onnx", "tiny/b.onnx")
    assert chosen(held, "", "repository") == list(held[1:])
    assert chosen(held, "m.safetensors", "repository") == ["m.safetensors"]
    assert chosen(held, "tiny", "repository") == ["tiny/a.onnx", "tiny/b.onnx"]
    with pytest.raises(NotInRepository):
        chosen(held, "huge", "repository")


LISTING = RepoListing("o/r", "c" * 40, files(*MANY, "tokenizer.json", "sub/config.json"))


def test_a_plan_brings_small_files_along() -> None:
    plan = plan_checkpoint("main", "o/r:Q4_K_M", LISTING, "gguf")
    assert [file.path for file in plan.files] == ["m-Q4_K_M.gguf", "config.json", "tokenizer.json"]
    assert plan.essential == ("m-Q4_K_M.gguf",)
    assert plan.primary == "m-Q4_K_M.gguf"
    assert (plan.repository, plan.revision, plan.variant) == ("o/r", "c" * 40, "Q4_K_M")
    assert plan.size_bytes == sum(file.size_bytes for file in plan.files)


def test_a_plan_for_everything_runs_a_model_not_its_projector() -> None:
    listing = RepoListing("o/r", "c" * 40, files("a-mmproj.gguf", "b.gguf"))
    assert plan_checkpoint("main", "o/r:*", listing, "gguf").primary == "b.gguf"


def test_a_plan_for_a_whole_repository_runs_its_folder() -> None:
    listing = RepoListing("o/r", "c" * 40, files("config.json", "m.safetensors"))
    assert plan_checkpoint("main", "o/r", listing, "repository").primary == ""
    one = plan_checkpoint("main", "o/r:m.safetensors", listing, "repository")
    assert one.primary == "m.safetensors"


def test_auxiliary_roles_name_a_file() -> None:
    plan = plan_checkpoint("mmproj", "o/r:mmproj-Q8_0.gguf", LISTING, "gguf")
    assert [file.path for file in plan.files] == ["mmproj-Q8_0.gguf"]
    with pytest.raises(NotInRepository, match="names no file"):
        plan_checkpoint("mmproj", "o/r", LISTING, "gguf")
    with pytest.raises(NotInRepository) as caught:
        plan_checkpoint("mmproj", "o/r:mmproj.gguf", LISTING, "gguf")
    assert "mmproj-Q8_0.gguf" in caught.value.remedy


# ---- whatever the names

stems = st.text(alphabet="abZ09._-", min_size=1, max_size=8)
QUANTS = ("Q4_K_M", "q8_0", "UD-Q4_K_XL", "IQ2_XXS", "BF16", "f16", "MXFP4_MOE", "Q1_0")


@given(st.lists(stems, max_size=3), st.sampled_from(QUANTS), st.sampled_from("-._"))
def test_a_delimited_quantisation_is_found(parts: list[str], quant: str, mark: str) -> None:
    before = mark.join(part for part in parts if not quant_of(part)).rstrip("dDuU-._")
    name = f"{before}{mark}{quant}.gguf" if before else f"{quant}.gguf"
    assert quant_of(name) == quant.upper()


@given(stems, st.integers(1, 40), st.sampled_from("-._"), st.integers(1, 6))
def test_a_family_is_all_its_parts_in_order(base: str, count: int, mark: str, width: int) -> None:
    parts = [f"{base}{mark}{i:0{width}}-of-{count:0{width}}.gguf" for i in range(1, count + 1)]
    strangers = [f"{base}x{mark}1-of-{count}.gguf", f"{base}{mark}1-of-{count + 1}.gguf"]
    for part in (parts[0], parts[-1]):
        assert family_of(part, [*reversed(parts), *strangers]) == tuple(parts)
    assert missing_parts(parts) == ()
    shard = shard_of(parts[-1])
    assert shard is not None
    assert (shard.index, shard.count) == (count, count)
    assert unsharded_stem(parts[0]) == base.rpartition("/")[2]


@given(st.integers(2, 30), st.data())
def test_a_missing_part_is_named(count: int, data: st.DataObject) -> None:
    parts = [f"m-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]
    lost = data.draw(st.integers(1, count))
    (said,) = missing_parts(parts[: lost - 1] + parts[lost:])
    assert said == f"m: part {lost} of {count}"


@pytest.mark.parametrize("name", ["m-0-of-2.gguf", "m-3-of-2.gguf", "m-1-of-2.bin", "1-of-2.gguf"])
def test_no_part_of_anything(name: str) -> None:
    assert shard_of(name) is None


def test_a_name_that_claims_too_many_parts_is_not_counted_out() -> None:
    assert len(missing_parts(["m-00001-of-99999.gguf"])) == 5


paths = st.lists(
    st.builds(
        lambda folder, stem, quant, shard: f"{folder}{stem}{quant}{shard}.gguf",
        st.sampled_from(["", "", "Q4_0/", "big-Q8_0/", "deep/er/"]),
        st.sampled_from(["m", "n", "mmproj-m", "mtp-m"]),
        st.sampled_from(["", "-Q4_0", "-q8_0", ".BF16"]),
        st.sampled_from(["", "", "-00001-of-00002", "-00002-of-00002"]),
    ),
    max_size=12,
    unique=True,
)


@given(paths)
def test_variants_hold(held: list[str]) -> None:
    variants = enumerate_variants(files(*held))
    covered = [path for variant in variants for path in variant.files]
    assert len(covered) == len(set(covered)), "no file is in two variants"
    assert set(covered) <= set(held)
    assert not any(re.search(r"mmproj|mtp-", path.rpartition("/")[2]) for path in covered)
    for variant in variants:
        assert variant.primary in variant.files
        alike = [v for v in variants if v.name.lower() == variant.name.lower()]
        if len(alike) == 1:
            assert chosen(tuple(held), variant.name) == list(variant.files)
    backwards = enumerate_variants(tuple(reversed(files(*held))))
    assert backwards == variants, "the order of a listing does not matter"


def test_the_end_of_a_parts_name_stands_for_all_parts():
    parts = tuple(RepoFile(f"x-Q4_K_M-0000{i}-of-00003.gguf", 5) for i in (1, 2, 3))
    files = (*parts, RepoFile("x-Q8_0.gguf", 5))
    chosen = select_files(files, "Q4_K_M-00002-of-00003", kind="gguf", where="o/r")
    assert chosen == parts
