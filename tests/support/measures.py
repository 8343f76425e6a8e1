"""Flows in: what tests have measured. Flows out: tables of it in the last lines of the run."""

from dataclasses import dataclass, field


@dataclass
class Measures:
    """Values by title, row and column."""

    tables: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def add(self, title: str, row: str, column: str, value: float) -> None:
        self.tables.setdefault(title, {}).setdefault(row, {})[column] = value

    def lines(self) -> list[str]:
        """The tables as text, one column for all the rows' names."""
        lines = []
        for title, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            lines.append(f"{title:30}" + "".join(f"{column:>20}" for column in columns))
            for name, row in rows.items():
                cells = "".join(f"{row[column]:20.2f}" if column in row else " " * 20 for column in columns)
                lines.append(f"{name:30}{cells}")
        return lines
