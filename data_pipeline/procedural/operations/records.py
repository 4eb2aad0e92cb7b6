"""Operations on records of named fields."""

import functools
from random import Random

from data_pipeline.procedural import lexicon
from data_pipeline.procedural.operation import Operation, Parameter, choice, maybe
from data_pipeline.procedural.values import ANSWER, RECORD, WORDS, Record

_edit = functools.partial(Operation, family="records", source=RECORD, result=RECORD)
_ask = functools.partial(Operation, family="records", source=RECORD, result=ANSWER)
_list = functools.partial(Operation, family="conversions", source=RECORD, result=WORDS)


def _fields(record: Record) -> list[str]:
    return [field for field, _ in record]


def _absent_fields(record: Record) -> list[str]:
    present = {field.casefold() for field in _fields(record)}
    return [field for field in lexicon.FIELDS if field not in present]


FIELD = choice("field", _fields)
ABSENT_FIELD = choice("new", _absent_fields)


def _draw_value(random: Random, record: Record) -> str:
    """Return a value that some field might have."""
    return random.choice(lexicon.FIELDS[random.choice(sorted(lexicon.FIELDS))])


VALUE = Parameter("value", r"[^\s\"]+", str, _draw_value)


def _sort(record: Record, part: int) -> Record:
    """Sort by name (part 0) or value (part 1); nothing where two are equal, as their order would be open."""
    keys = {pair[part].casefold() for pair in record}
    return tuple(sorted(record, key=lambda pair: pair[part].casefold())) if len(keys) == len(record) else ()


def _set(record: Record, field: str, value: str) -> Record:
    """Return the record with another value for a field that it has."""
    if field not in _fields(record):
        return ()
    return tuple((name, value if name == field else old) for name, old in record)


def _add(record: Record, new: str, value: str) -> Record:
    return (*record, (new, value)) if new not in _fields(record) else ()


def _rename(record: Record, field: str, new: str) -> Record:
    names = _fields(record)
    if field not in names or new in names:
        return ()
    return tuple((new if name == field else name, value) for name, value in record)


def _to_front(record: Record, field: str) -> Record:
    if _fields(record).count(field) != 1:
        return ()
    return tuple(sorted(record, key=lambda pair: pair[0] != field))


def _value_of(record: Record, field: str) -> str | None:
    values = [value for name, value in record if name == field]
    return values[0] if len(values) == 1 else None


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


EDITS = (
    _edit(
        name="sort_fields",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the fields of the record by their names, alphabetically.",
            "Put the record's fields in alphabetical order of field names.",
            "Order the record by field name, from A to Z.",
            "Arrange the fields so that their names follow the alphabet.",
        ),
        compute=lambda record: _sort(record, 0),
    ),
    _edit(
        name="sort_fields_by_value",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the fields of the record by their values, alphabetically.",
            "Put the record's fields in alphabetical order of what they hold.",
            "Order the record by value, from A to Z, ignoring upper and lower case.",
            "Arrange the fields so that their values follow the alphabet.",
        ),
        compute=lambda record: _sort(record, 1),
    ),
    _edit(
        name="reverse_fields",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the order of the fields of the record.",
            "Write the record's fields from the last to the first.",
            "Put the fields of the record in the opposite order.",
            "Turn the record around, field by field.",
        ),
        compute=lambda record: record[::-1],
    ),
    _edit(
        name="remove_field",
        category="deletion",
        level=2,
        phrasings=(
            'Remove the field "{field}" from the record.',
            'Delete the record\'s "{field}".',
            'Drop the field called "{field}".',
            'Write the record without its field "{field}".',
        ),
        compute=lambda record, field: tuple(pair for pair in record if pair[0] != field),
        parameters=(FIELD,),
    ),
    _edit(
        name="keep_first_two_fields",
        category="selection",
        level=1,
        phrasings=(
            "Keep only the first two fields of the record.",
            "Cut the record after its second field.",
            "Write down just the two fields that the record begins with.",
            "Remove all fields of the record but the first two.",
        ),
        compute=lambda record: record[:2],
    ),
    _edit(
        name="remove_last_field",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the last field of the record.",
            "Delete the field that the record ends with.",
            "Drop the final field of the record.",
            "Leave out the field that comes last in the record.",
        ),
        compute=lambda record: record[:-1],
    ),
    _edit(
        name="rename_field",
        category="replacement",
        level=2,
        phrasings=(
            'Rename the field "{field}" to "{new}".',
            'Change the name of the field "{field}" into "{new}" and keep its value.',
            'Call the field "{field}" of the record "{new}" instead.',
            'Let the record\'s field "{field}" have the name "{new}".',
        ),
        compute=_rename,
        parameters=(FIELD, ABSENT_FIELD),
    ),
    _edit(
        name="set_field",
        category="replacement",
        level=2,
        phrasings=(
            'Set the field "{field}" to "{value}".',
            'Change the value of the field "{field}" to "{value}".',
            'Let the record say "{value}" for "{field}".',
            'Write "{value}" into the record\'s field "{field}".',
        ),
        compute=_set,
        parameters=(FIELD, VALUE),
    ),
    _edit(
        name="add_field",
        category="insertion",
        level=2,
        phrasings=(
            'Add a field "{new}" with the value "{value}" at the end of the record.',
            'Append the field "{new}" to the record, holding "{value}".',
            'Let the record end with a further field, "{new}", whose value is "{value}".',
            'Extend the record by a last field called "{new}" that says "{value}".',
        ),
        compute=_add,
        parameters=(ABSENT_FIELD, VALUE),
    ),
    _edit(
        name="move_field_to_front",
        category="reordering",
        level=2,
        phrasings=(
            'Move the field "{field}" to the front of the record.',
            'Put the record\'s "{field}" before its other fields.',
            'Let the record begin with its field "{field}".',
            'Take the field "{field}" out of its place and write it first in the record.',
        ),
        compute=_to_front,
        parameters=(FIELD,),
    ),
    _edit(
        name="uppercase_field_values",
        category="formatting",
        level=3,
        phrasings=(
            "Write the values of the record in capital letters.",
            "Convert every value in the record to upper case.",
            "Put what the fields hold in all caps and leave their names.",
            "Change each letter of the record's values to a capital.",
        ),
        compute=lambda record: tuple((field, value.upper()) for field, value in record),
    ),
    _edit(
        name="capitalize_field_names",
        category="formatting",
        level=3,
        phrasings=(
            "Capitalize the first letter of each field name.",
            "Let every field name of the record start with a capital.",
            "Write the names of the fields with a capital first letter.",
            "Give each field of the record a name whose first letter is a capital.",
        ),
        compute=lambda record: tuple((field[0].upper() + field[1:], value) for field, value in record),
    ),
    _edit(
        name="swap_names_and_values",
        category="conversion",
        level=1,
        phrasings=(
            "Swap the name and the value of each field.",
            "Exchange field names and values throughout the record.",
            "In every field, put the value before the colon and the name behind it.",
            "Let names and values of the record's fields change places.",
        ),
        compute=lambda record: tuple((value, field) for field, value in record),
    ),
)

CONVERSIONS = (
    _list(
        name="list_field_names",
        category="extraction",
        level=1,
        phrasings=(
            "List the names of the fields, separated by commas.",
            "Write down only the record's field names, with commas between.",
            "Extract the field names of the record as a list with commas.",
            "Turn the record into a comma-separated list of what its fields are called.",
        ),
        compute=lambda record: tuple(field for field, _ in record),
    ),
    _list(
        name="list_field_values",
        category="extraction",
        level=1,
        phrasings=(
            "List the values of the fields, separated by commas.",
            "Write down only the record's values, with commas between.",
            "Extract the values of the record as a list with commas.",
            "Turn the record into a comma-separated list of what its fields hold.",
        ),
        compute=lambda record: tuple(value for _, value in record),
    ),
)

QUESTIONS = (
    _ask(
        name="value_of_field",
        category="extraction",
        level=2,
        phrasings=(
            'What is the value of the field "{field}"?',
            'Answer with what the record says for "{field}".',
            'Look up "{field}" in the record.',
            'Give only the value that the record\'s field "{field}" holds.',
        ),
        compute=_value_of,
        parameters=(FIELD,),
    ),
    _ask(
        name="has_field",
        category="yes-no question",
        level=2,
        phrasings=(
            'Does the record have a field "{field}"? Answer yes or no.',
            'Is "{field}" the name of one of the fields? Answer yes or no.',
            'Say yes if the record has a field called "{field}" and no if it has not.',
            'Check the record for a field "{field}" and answer yes or no.',
        ),
        compute=lambda record, field: _yes(field in _fields(record)),
        parameters=(maybe("field", _fields, _absent_fields),),
    ),
    _ask(
        name="count_fields",
        category="counting",
        level=2,
        phrasings=(
            "How many fields does the record have?",
            "Count the fields of the record.",
            "Give the record's number of fields.",
            "Say how many fields the record is made of.",
        ),
        compute=lambda record: str(len(record)),
    ),
)

OPERATIONS = (*EDITS, *CONVERSIONS, *QUESTIONS)
