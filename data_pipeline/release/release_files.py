"""The files of the official Chain-of-Instructions release, at the commit that the project pins.

The checksums are the ids that git gives to the files' contents in that commit (`git ls-tree -r COMMIT data`): SHA-1 of
"blob", the size in bytes, a null byte and the content.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum

from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path, file_size, list_files

REPOSITORY = "amazon-science/chain-of-instructions"
COMMIT = "56a730e1f50e4c5fe2acb4d28ead8a0d8002496d"
LICENCE = "CC BY-NC 4.0"
BASE_URL = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/data"

CHECKSUMS = {
    "test/bigbenchhard/test_boolean_expressions": "2cfa86148d3da1c06155479adcff802a0233e71e",
    "test/bigbenchhard/test_causal_judgement": "45c1a591d7c0ea6c49d0b87d88db539163463f1e",
    "test/bigbenchhard/test_date_understanding": "8f2725ae6e038f7abc6f89fbf771e4b5a56b172e",
    "test/bigbenchhard/test_disambiguation_qa": "3b85bd6efc511a0d10668bd196507baa7f260449",
    "test/bigbenchhard/test_dyck_languages": "bdea155c861cd462c1a3fdc07e0d82d91d952794",
    "test/bigbenchhard/test_formal_fallacies": "17f760b930cfb3011dfb9ff5a697f0fd9511e12f",
    "test/bigbenchhard/test_geometric_shapes": "a895a025222b2824e1cd4ba3b71ce7b546e2ac54",
    "test/bigbenchhard/test_hyperbaton": "d31a5d0d64ac79cf5273f73f132fbc8d201ddbdc",
    "test/bigbenchhard/test_logical_deduction_five_objects": "60751c2aaf7cb6a82c83f2287e78add4ef7a3c01",
    "test/bigbenchhard/test_logical_deduction_seven_objects": "3df6e317772c20a6a7b87553d81557bda114b2f6",
    "test/bigbenchhard/test_logical_deduction_three_objects": "189f2ba317c6e3171e00ed115dec2e04f65e3a94",
    "test/bigbenchhard/test_movie_recommendation": "b499db0d41e9d8709b401d8a1dc2a0bfb6c3ccb3",
    "test/bigbenchhard/test_multistep_arithmetic_two": "9ee09271c0d5f6afac1b77ab47ee9fb249031561",
    "test/bigbenchhard/test_navigate": "0daea8002f2e790e4111bac82c6c5c5ab417d811",
    "test/bigbenchhard/test_object_counting": "0b67b63a33357635da8f2a2acb64e0c7437283ce",
    "test/bigbenchhard/test_penguins_in_a_table": "f4988e987968280958c067ea6e20d42ae3fd6127",
    "test/bigbenchhard/test_reasoning_about_colored_objects": "63570dc0061f513ee991af63a473720aff475e30",
    "test/bigbenchhard/test_ruin_names": "8763b9abd88b880d036a894675955e9cda09e014",
    "test/bigbenchhard/test_salient_translation_error_detection": "f5fb166f4ed89251265f540d9dc171ff7a78a072",
    "test/bigbenchhard/test_snarks": "c57d5609406a77bde9704726f4dd2488cd8ab95e",
    "test/bigbenchhard/test_sports_understanding": "8d637de1b688f279de19f102bc99905f16e9dd25",
    "test/bigbenchhard/test_temporal_sequences": "06162d1120d5bcdd2098a36d7acea5d181a5069b",
    "test/bigbenchhard/test_tracking_shuffled_objects_five_objects": "11f6d03f3918f970ce21fe6cf82cefc8ce0ce856",
    "test/bigbenchhard/test_tracking_shuffled_objects_seven_objects": "feee4a878c6ad35dddeab90574b6068c2bc10e71",
    "test/bigbenchhard/test_tracking_shuffled_objects_three_objects": "570c424cd8367376e5f5624a1377d1e1f96b67c3",
    "test/bigbenchhard/test_web_of_lies": "470d2b627c7c12fc67d9bf08020a5a66e536710d",
    "test/bigbenchhard/test_word_sorting": "bc8de18d76de36adf383a4e56f68c18c6434a2fa",
    "test/coi2_test.json": "69977e8461a61e8af801aa56e620a185b9fa4cf1",
    "test/coi3_test.json": "0f76586f097b19a389dab1a5be86af2b9323e220",
    "test/eng2fra_summarize_then_translate200.json": "2549b7e5935fdebdba5d652de1582fcf1b8170d2",
    "test/spa2eng_summarize_then_translate200.json.json": "8ea007dad825a262493f3cbdc1a7c9a1e50e7941",
    "train/coi_1.json": "7e3289e577c06677e7308158f47ec085a7db5b89",
    "train/coi_12.json": "32e9a99630993b1a3ce40c0686d183dd98d85285",
    "train/coi_123.json": "2f4abaae976f3056f8d4503c64042af0f0c0f868",
    "train/coi_2.json": "dcd377adf56b8185274d4a9470d5f87813011afe",
    "train/coi_3.json": "abc5425eb697ea2dfddab44ab50d7b34ebf5baac",
    "train/irrelevant_coi_12.json": "0e04aa9c9d98a1c0a686a30b5f4a8a08186c347e",
    "train/irrelevant_coi_123.json": "e06c285d3504a51e960c42625c88d469fd9540fe",
    "train/irrelevant_coi_2.json": "77db887135728db0a6916de8068467224c1655d7",
    "train/irrelevant_coi_3.json": "189c3ae6125d178a900f060d5b9e12010e49691a",
    "train/summarized_coi_12": "97c721b1817f29ec0a5889f1ac03d4554d1a6648",
    "train/summarized_coi_123": "8f40c507e58254b24dd7a047f1fe013061f750c8",
    "train/summarized_coi_2.json": "6cb28f76293a21598ed6061f297582269e7c3eae",
    "train/summarized_coi_3": "3804f69cb35c171d8c635055227622462292611c",
}


class Form(Enum):
    """The form in which a file writes its rows."""

    CHAIN = "instructions joined with ' and then ', outputs with labels"
    FUSED = "instructions fused into one, outputs with labels"
    SUMMARY = "summarise, then translate: `eng_output` is the summary, `output` its translation"


@dataclass(frozen=True)
class ReleaseFile:
    """One file: where it lies under `data/`, its form, its split, and the lengths that its chains may have.

    A union file repeats the rows of other files; only rows that no other file has are imported from it.
    """

    path: str
    form: Form
    split: str
    lengths: tuple[int, ...]
    union: bool = False

    @property
    def source(self) -> str:
        """Return the value of `Chain.source`: the path under `data/train` or `data/test`."""
        return self.path.partition("/")[2]

    @property
    def is_training(self) -> bool:
        """Return whether the file lies in `data/train`."""
        return self.path.startswith("train/")


def _variants(split: str, form: Form, names: dict[str, tuple[int, ...]]) -> list[ReleaseFile]:
    files = [ReleaseFile(f"train/{name}", form, split, lengths) for name, lengths in names.items()]
    return [ReleaseFile(f.path, f.form, f.split, f.lengths, union=len(f.lengths) > 1) for f in files]


def _bbh() -> list[ReleaseFile]:
    return [ReleaseFile(path, Form.CHAIN, "bbh", (1,)) for path in CHECKSUMS if "/bigbenchhard/" in path]


# In the order in which they are imported: a union file comes after the files that it repeats.
FILES: tuple[ReleaseFile, ...] = (
    *_variants(
        "train",
        Form.CHAIN,
        {"coi_1.json": (1,), "coi_2.json": (2,), "coi_3.json": (3,), "coi_12.json": (1, 2), "coi_123.json": (1, 2, 3)},
    ),
    ReleaseFile("test/coi2_test.json", Form.CHAIN, "test", (2,)),
    ReleaseFile("test/coi3_test.json", Form.CHAIN, "test", (3,)),
    *_bbh(),
    ReleaseFile("test/eng2fra_summarize_then_translate200.json", Form.SUMMARY, "wikilingua_en_fr", (2,)),
    ReleaseFile("test/spa2eng_summarize_then_translate200.json.json", Form.SUMMARY, "wikilingua_es_en", (2,)),
    *_variants(
        "summarized",
        Form.FUSED,
        {
            "summarized_coi_2.json": (2,),
            "summarized_coi_3": (3,),
            "summarized_coi_12": (1, 2),
            "summarized_coi_123": (1, 2, 3),
        },
    ),
    *_variants(
        "irrelevant",
        Form.CHAIN,
        {
            "irrelevant_coi_2.json": (2,),
            "irrelevant_coi_3.json": (3,),
            "irrelevant_coi_12.json": (1, 2),
            "irrelevant_coi_123.json": (1, 2, 3),
        },
    ),
)


def data_folder(src: PathLike) -> epath.Path:
    """Return the folder that has `train` and `test`: `src/data` (a copy of the repository) or `src` itself.

    Raises:
      UserError: `src` is missing or holds neither.
    """
    root = as_path(src, "src")
    if not root.is_dir():
        raise UserError("src", src, "no such folder; name the release's folder, or leave --src out to download it")
    for folder in (root / "data", root):
        if (folder / "train").is_dir() or (folder / "test").is_dir():
            return folder
    raise UserError("src", src, "holds neither data/train nor data/test; name the release's folder")


def present(folder: PathLike) -> tuple[list[ReleaseFile], list[str]]:
    """Return the files of the release that lie in a data folder, in order of import, and the paths of unknown files."""
    found = set(list_files(folder))
    known = [file for file in FILES if file.path in found]
    return known, sorted(found - {file.path for file in FILES})


def git_blob(path: PathLike) -> str:
    """Return the id that git gives to a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % file_size(path), usedforsecurity=False)
    with as_path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
