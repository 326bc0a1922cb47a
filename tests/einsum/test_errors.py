"""An error is one sentence with its place; a hint names the closest valid name."""

from einsum.errors import EinsightError, SpecError, join_key, nearest


def test_an_error_shows_file_then_key_then_message() -> None:
    error = SpecError("the size is negative", file="a.yaml", key="levels.L3.capacity")
    assert str(error) == "a.yaml: levels.L3.capacity: the size is negative"
    assert str(SpecError("the size is negative")) == "the size is negative"


def test_a_location_is_added_from_inside_out() -> None:
    error = SpecError("bad", key="capacity", column=3).located(key="levels[0]").located(file="a.yaml")
    assert (error.file, error.key, error.column) == ("a.yaml", "levels[0].capacity", 3)
    assert isinstance(error, SpecError)
    assert SpecError("bad", file="first.yaml").located(file="second.yaml").file == "first.yaml"


def test_a_spec_error_is_an_einsight_error_and_a_value_error() -> None:
    assert issubclass(SpecError, EinsightError)
    assert issubclass(SpecError, ValueError)


def test_keys_are_joined_like_people_write_them() -> None:
    assert join_key("levels", 2, "name") == "levels[2].name"
    assert join_key(None, "", None) is None


def test_the_nearest_name_is_suggested_whatever_its_case() -> None:
    assert nearest("fusemx", ["fusemax", "flat-cloud"]) == " (did you mean 'fusemax'?)"
    assert nearest("QK", ["qk", "AV"]) == " (did you mean 'qk'?)"


def test_without_a_close_name_the_known_ones_are_listed() -> None:
    assert nearest("zzz", ["b", "a"]) == " (known: a, b)"
    assert nearest("zzz", []) == " (none are defined)"
    assert nearest("zzz", [f"name{i:02}" for i in range(20)]).endswith("name11 and 8 more)")
