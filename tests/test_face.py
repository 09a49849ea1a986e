"""The public face: plain functions with explicit, documented keywords, whatever was imported before."""

import inspect
import subprocess
import sys
import types

import pytest

import jumpgpu


@pytest.mark.parametrize("name", jumpgpu.__all__)
def test_a_public_function_is_plain_explicit_and_documented(name: str) -> None:
    function = getattr(jumpgpu, name)
    assert isinstance(function, types.FunctionType)
    document = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.kind is not parameter.VAR_KEYWORD, f"{name}: **{parameter.name}"
        assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name} has no type"
        assert parameter.name in document, f"help(jumpgpu.{name}) does not tell of {parameter.name}"
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize(
    "name", sorted(set(jumpgpu.__all__) & {"extract", "segment", "profile", "report", "export", "import_cppipe"})
)
def test_a_command_of_the_same_name_does_not_replace_the_function(name: str) -> None:
    program = (
        f"import types, sys, warnings; warnings.simplefilter('error'); import jumpgpu.{name}, jumpgpu; "
        f"from jumpgpu import {name} as given; import jumpgpu.{name} as again; "
        f"assert type(jumpgpu.{name}) is types.FunctionType; assert given is again is jumpgpu.{name}; "
        f"assert callable(sys.modules['jumpgpu.{name}'].main)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_face_loads_nothing_until_it_is_asked() -> None:
    program = "import sys, jumpgpu; dir(jumpgpu); assert not {'torch', 'zarr', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
