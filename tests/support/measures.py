"""Flows in: what tests have measured. Flows out: tables of it in the last lines of the run."""

from dataclasses import dataclass, field


@dataclass
class Measures:
    """Values by title, row and column."""

    tables: dict[str, dict[str, dict[str, float | str]]] = field(default_factory=dict)

    def add(self, title: str, row: str, column: str, value: float | str) -> None:
        self.tables.setdefault(title, {}).setdefault(row, {})[column] = value

    def lines(self) -> list[str]:
        """The tables as text, one column for all the rows' names."""
        lines = []
        for title, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            lines.append(f"{title:30}" + "".join(f"{column:>20}" for column in columns))
            for name, row in rows.items():
                lines.append(f"{name:30}" + "".join(_cell(row.get(column, "")) for column in columns))
        return lines


def _cell(value: float | str) -> str:
    """Numbers under each other; a text that is longer than a cell pushes what follows to the right."""
    return f"  {value:18}" if isinstance(value, str) else f"{value:20.2f}"
