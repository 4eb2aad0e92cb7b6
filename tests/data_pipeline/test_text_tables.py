from data_pipeline.text_tables import markdown_table, text_table


def test_table_columns_stand_under_their_heads() -> None:
    lines = text_table(["name", "count"], [["a", 1234], ["longer name", 5]])
    assert lines == ["name         count", "a            1,234", "longer name      5"]


def test_a_column_of_shares_is_one_of_numbers_and_empty_cells_count_for_nothing() -> None:
    lines = text_table(["split", "share"], [["train", "1 (33.3%)"], ["test", "–"], ["total", ""]])
    assert lines == ["split      share", "train  1 (33.3%)", "test           –", "total"]


def test_a_table_without_rows_is_its_head() -> None:
    assert text_table(["name", "count"], []) == ["name  count"]


def test_a_markdown_table_has_a_line_below_its_head() -> None:
    head, rule, row = markdown_table(["name", "count"], [["a", 1234]])
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["name", "count"]
    assert set(rule) <= {"|", "-", ":"}
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["a", "1,234"]
