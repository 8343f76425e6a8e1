"""In: the columns wanted of a foreign table. Out: the properties to ask for, and a record as a row of those columns.

Pure. The sync, scan() and the foreign tables all use it; they differ in the types that values are converted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import orjson

from neo4j_deals.errors import DealSyncError, Garbled
from neo4j_deals.floats import Floats
from neo4j_deals.mapping.defaults import CONFIDENCE_SUFFIX, DIMENSION_PREFIX
from neo4j_deals.mapping.model import READY_MADE, Column
from neo4j_deals.mapping.types import TEXTS, convertible
from neo4j_deals.rows import derived
from neo4j_deals.rows.copy_format import ShortVector, Unusual
from neo4j_deals.rows.derived import dimension_of
from neo4j_deals.rows.shown import shown
from neo4j_deals.rows.values import (
    MAX_VALUE_BYTES,
    Converter,
    Misfit,
    Misfits,
    as_text,
    clean,
    converter,
    finite,
    landing,
    vector_text,
)

_ERRORS = "conversion_errors"
_THE_REST = ""  # the substitute of a misfit in a document, which lands without it
_MAX_JSON = 0x0FFFFFFF  # bytes of the elements of one jsonb object or array


def to_foreign(column: Column) -> Converter:
    """The conversion to the foreign column's own type, for a SELECT. Raises DealSyncError if there is none."""
    if column.derive in READY_MADE:
        return ready
    if not convertible(column.type_name):
        raise DealSyncError(
            "HV004",
            f'column "{column.name}" is of type {column.type_name}, to which no value of the graph can be converted',
            hint="Make it text or jsonb, and cast it in the query.",
        )
    convert = converter(column.type_name, column.type_modifier)
    if column.empty_is_null and column.type_name not in TEXTS:
        convert = _without_empty_texts(convert)
    return _whole_key(convert) if column.key else convert


def _whole_key(convert: Converter) -> Converter:
    """Removes no character from a key: a text with a NUL character is not an id."""

    def converter(value: Any) -> Any:
        try:
            return convert(value)
        except Misfit as misfit:
            raise Misfit(misfit.sqlstate, misfit.reason) from None

    return converter


def to_staged(column: Column, limit: int = MAX_VALUE_BYTES) -> Converter:
    """The conversion to the target's type, in the form that is staged; texts have at most `limit` bytes."""
    assert column.staged_name is not None
    if column.derive in READY_MADE:
        return ready
    due = column.text_of
    if due is None:
        convert = landing(column.type_name, column.staged_name, column.staged_modifier, limit)
    else:
        form = vector_text if due == "halfvec" else as_text
        convert = form(landing(column.type_name, due, column.due_modifier, limit))
    return _without_empty_texts(convert) if column.empty_is_null else convert


def _without_empty_texts(convert: Converter) -> Converter:
    """An empty text becomes NULL before it is converted, and so does one that has no valid character."""

    def converter(value: Any) -> Any:
        if value == "":
            return None
        try:
            return convert(value)
        except Misfit as misfit:
            if misfit.substitute != "":
                raise
            raise Misfit(misfit.sqlstate, misfit.reason) from None

    return converter


def ready(value: Any) -> Any:
    """The conversion and the encoder of a value that needs none."""
    return value


class AsItIs:
    """A short cut for values of a Python type that need neither conversion nor encoder, unless they are unusual: a
    number that is not finite, a text that is long or has a character that PostgreSQL does not support.

    Such values of a row are checked together, which takes a quarter of the time.
    """

    def __init__(self, due: type) -> None:
        self.due = due

    def __call__(self, value: Any) -> Any:
        sound: Any = clean if self.due is str else finite
        if type(value) is not self.due or not sound([value]):
            raise Unusual
        return value


#: By the type of a column, the Python type of values that it shows unchanged.
_AS_IT_IS = {"text": str, "int8": int, "float8": float, "bool": bool}


def as_it_is(column: Column) -> AsItIs | None:
    """The short cut of a column whose values PostgreSQL itself converts."""
    due = None if column.derive else _AS_IT_IS.get(column.type_name)
    return AsItIs(due) if due else None


_FORMS = 256  # kinds of records, by the types of their values; beyond these, planning costs more than it saves


class _Form:
    """What to do for records whose values have these types: it is the same for each of them."""

    def __init__(
        self, types: tuple[type, ...], plain: Sequence[tuple[int, Converter, Column, Converter, Converter]]
    ) -> None:
        places = [at for at, *_ in plain]
        texts, numbers, rest = list[int](), list[int](), list[tuple[int, int, Converter]]()
        for to, (at, short, _, convert, finish) in enumerate(plain):
            if types[at] is type(None):
                continue
            if not isinstance(short, AsItIs):
                rest.append((to, at, short))
            elif short.due is not types[at]:
                rest.append((to, at, _both(convert, finish)))
            elif short.due is str:
                texts.append(at)
            elif short.due is float:
                numbers.append(at)
        self._places, self._texts, self._numbers, self._rest = _pick(places), _pick(texts), _pick(numbers), rest

    def row(self, record: tuple[Any, ...]) -> list[Any]:
        """Raises Unusual, Misfit or TypeError if a value must take the long way."""
        if not clean(self._texts(record)) or not finite(self._numbers(record)):
            raise Unusual
        values = list(self._places(record))
        for to, at, short in self._rest:
            values[to] = short(record[at])
        return values


def _pick(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that picks the values at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda record: [record[at] for at in places]


class Projection:
    """How a record becomes a row.

    `columns` are those wanted, each with its conversion, the encoder of a converted value, and perhaps a short cut for
    both, which raises Unusual or TypeError if a value must take the long way. `known` are all columns of the foreign
    table: those named "dim_…" are the mapped dimensions. `limit` is the maximum length of a text in bytes.
    """

    def __init__(
        self,
        columns: Sequence[tuple[Column, Converter, Converter, Converter | None]],
        known: Iterable[Column],
        limit: int = MAX_VALUE_BYTES,
    ):
        known, self._limit = list(known), limit
        by_property = {column.property: column for column in known if not column.derive}
        self._dimensions = [name for column in known if not column.derive and (name := dimension_of(column.property))]
        #: By property, the dimensions' columns that report a misfit of their own, whatever the row has.
        self._landing = {name: c.name for name, c in by_property.items() if c.target and c.overwrites}
        #: The dimensions in the document of scores: also one of which only the confidence is mapped.
        self._documented = list(
            dict.fromkeys(
                [*self._dimensions, *(name for property_ in by_property if (name := self._unmapped(property_)))]
            )
        )
        self.wants_scores = any(column.derive == "ontology_scores" for column, *_ in columns)
        self.wants_labels = any(column.derive == "labels" for column, *_ in columns)

        wanted = [column.property for column, *_ in columns if not column.derive]
        sources = [name for column, *_ in columns for name in self._sources(column, by_property)]
        others = {column.property for column, *_, short in columns if not isinstance(short, ShortVector)} | {*sources}
        vectors = [name for name in wanted if name not in others]
        #: The properties to ask for, in the order of a record (after its element id, before its labels if wanted).
        self.properties = list(dict.fromkeys([*vectors, *wanted, *sources]))
        #: The places of a record in which a list of FLOATs may be `Floats`: nothing but vectors is made of it.
        self.floats_at = tuple(range(1, 1 + len(set(vectors))))
        #: The properties "dim_…" among them; if scores are wanted, a record ends with the others that a node has.
        self.known_dimensions = [name for name in self.properties if name.startswith(DIMENSION_PREFIX)]
        place = {name: at for at, name in enumerate(self.properties, start=1)}
        self._plain = [
            (place[column.property], short or _both(convert, finish), column, convert, finish)
            for column, convert, finish, short in columns
            if not column.derive
        ]
        self._fast = [(at, short) for at, short, *_ in self._plain]
        as_they_are = any(isinstance(short, AsItIs) for _, short in self._fast)
        self._forms: dict[tuple[type, ...], _Form] | None = {} if as_they_are else None
        self._derived = sorted(
            ((column, short or _both(convert, finish)) for column, convert, finish, short in columns if column.derive),
            key=lambda column: column[0].derive == _ERRORS,  # last, when all misfits are known
        )
        #: The columns in the order of a row.
        self.columns = [column for _, _, column, _, _ in self._plain] + [column for column, *_ in self._derived]

    @property
    def dimensions_but(self) -> list[str] | None:
        """An argument of `cypher.rows`: the known dimensions, if the scores of the others are wanted, too."""
        return self.known_dimensions if self.wants_scores else None

    def _sources(self, column: Column, by_property: dict[str, Column]) -> list[str]:
        match column.derive:
            case "ontology_scores":
                return [name for name in by_property if name.startswith(DIMENSION_PREFIX)]
            case "ontology_completeness":
                return [column.property, *(DIMENSION_PREFIX + name for name in self._dimensions)]
            case "meddic_completeness":
                return [column.property, *column.of]
            case "workflow_metadata":
                return list(derived.WORKFLOW_METADATA.values())
        return []

    def row(self, record: tuple[Any, ...]) -> tuple[list[Any], Misfits]:
        """The values in the order of `columns`, and the misfits."""
        misfits: Misfits = {}
        try:  # most rows need nothing else, and most of the time is spent here
            if form := self._form(record):
                values = form.row(record)
            else:
                values = [None if (value := record[at]) is None else short(value) for at, short in self._fast]
        except (Misfit, Unusual, TypeError):
            values = [
                self._value(record[at], short, column, convert, finish, misfits)
                for at, short, column, convert, finish in self._plain
            ]
        if self._derived:
            properties = self._named(record)
            for column, finish in self._derived:
                try:
                    value = self._derive(column, record, properties, misfits)
                    if isinstance(value, str) and len(value) > _MAX_JSON // 4 and len(value.encode()) > _MAX_JSON:
                        raise Misfit("54000", f"document exceeds the maximum size of jsonb ({_MAX_JSON} bytes)")
                    values.append(None if value is None else finish(value))
                except Misfit as misfit:  # the conversion raises it, too: a figure out of its column's range
                    misfits[column.name] = (misfit, properties.get(column.property))
                    values.append(None)
        return values, misfits

    def _form(self, record: tuple[Any, ...]) -> _Form | None:
        """The form of a record, if there are columns that show values unchanged."""
        if self._forms is None:
            return None
        types = tuple(map(type, record))
        form = self._forms.get(types)
        if form is None and len(self._forms) < _FORMS:
            form = self._forms[types] = _Form(types, self._plain)
        return form

    @staticmethod
    def _value(
        value: Any, short: Converter, column: Column, convert: Converter, finish: Converter, misfits: Misfits
    ) -> Any:
        """One value; a misfit is added to `misfits`, and its substitute lands."""
        if value is None:
            return None
        try:
            return short(value)
        except (Misfit, Unusual, TypeError):
            pass
        if type(value) is Floats:
            value = value.as_list()
        try:
            left = convert(value)
        except Misfit as misfit:
            misfits[column.name] = (misfit, value)
            left = misfit.substitute
        return None if left is None else finish(left)

    def _named(self, record: tuple[Any, ...]) -> dict[str, Any]:
        properties = dict(zip(self.properties, record[1:], strict=False))
        if self.wants_scores:
            if not _are_pairs(record[-1]):
                raise Garbled("the properties of a node are not a list of names and values")
            properties |= record[-1]
        return properties

    def _derive(self, column: Column, record: tuple[Any, ...], properties: dict[str, Any], misfits: Misfits) -> Any:
        def tell(name: str, misfit: Misfit) -> None:
            if column.derive == "ontology_scores" and self._landing.get(name) in misfits:
                return  # its own column reports it
            reason = f"{name}: {misfit.reason}"
            if column.name in misfits:
                reason = f"{misfits[column.name][0].reason}; {reason}"
            misfits[column.name] = (Misfit(misfit.sqlstate, reason, _THE_REST), properties.get(name))

        match column.derive:
            case "ontology_scores":
                unmapped = [name for key, _ in record[-1] if (name := self._unmapped(key))]
                names = dict.fromkeys([*self._documented, *unmapped]) if unmapped else self._documented
                return derived.ontology_scores(properties, names, tell)
            case "ontology_completeness":
                return derived.ontology_completeness(properties, self._dimensions)
            case "meddic_completeness":
                return derived.meddic_completeness(properties, column.of)
            case "workflow_metadata":
                return derived.workflow_metadata(properties, tell, self._limit)
            case "element_id":
                return record[0]
            case "labels":
                labels = record[1 + len(self.properties)]
                if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                    raise Garbled("the labels of a node are not a list of texts")
                return sorted(labels)
            case "conversion_errors":
                return errors_json(misfits)
        raise AssertionError(column.derive)  # the validator accepts no other

    @staticmethod
    def _unmapped(key: str) -> str | None:
        """The dimension that a property belongs to, score or confidence."""
        return dimension_of(key.removesuffix(CONFIDENCE_SUFFIX))


def _are_pairs(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in values
    )


def _both(convert: Converter, finish: Converter) -> Converter:
    return lambda value: None if (converted := convert(value)) is None else finish(converted)


def errors_json(misfits: Misfits) -> str | None:
    """`conversion_errors`: by column, SQLSTATE, message and the offending value; None if there are no misfits."""
    if not misfits:
        return None
    return orjson.dumps(
        {
            name: {
                "sqlstate": misfit.sqlstate,
                "message": misfit.reason,
                "value": shown(value),
                "landed": misfit.substitute is not None,
            }
            for name, (misfit, value) in misfits.items()
        }
    ).decode()
