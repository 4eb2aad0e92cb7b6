"""The small files in a published model's folder: their names, and where its chat template is."""

from collections.abc import Mapping
from typing import Any

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER_MODELS = ("tokenizer.json", "tokenizer.model", "spiece.model")
TOKENIZER_CONFIG = "tokenizer_config.json"
# The file that newer versions of `transformers` write, and the one of processors of an older version.
TEMPLATE, TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
DEFAULT = "default"


def named_templates(found: Any) -> dict[str, str]:
    """Return chat templates by name, from the field `chat_template` of a JSON file.

    The field holds one template, several by name, or a list of objects with a name and a template each.
    """
    if isinstance(found, str):
        return {DEFAULT: found} if found else {}
    if isinstance(found, Mapping):
        return {str(name): text for name, text in found.items() if isinstance(text, str)}
    if isinstance(found, list):
        entries = [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("template"), str)]
        return {str(entry.get("name", DEFAULT)): entry["template"] for entry in entries}
    return {}
