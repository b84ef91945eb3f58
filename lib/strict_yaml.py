"""A YAML file of parameters, read as DVC reads it, or refused."""

import re
from pathlib import Path
from typing import Any

import yaml

from lib.errors import BadInput

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Numbers to DVC (YAML 1.2), which writes 1e-05, and text to PyYAML (YAML 1.1).
ALSO_NUMBERS = re.compile(r"([-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+|[-+]\.[0-9_]+([eE][-+][0-9]+)?)$")
READ_OTHERWISE = re.compile(r".*:|[-+]?0[0-9_]+$")  # differently by YAML 1.1 (PyYAML) and 1.2 (DVC)


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's mapping. Raises BadInput: one line with the file, the place in it and the fix."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except FileNotFoundError:
        raise BadInput(f"{path} is not there: run this in the repository's top folder") from None
    except Exception as error:  # a value that does not fit its explicit tag, as `!!float ''`, can raise nearly anything
        raise BadInput(f"{path} is not readable YAML: {' '.join(str(error).split()) or type(error).__name__}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} is not a mapping of parameters: restore it by `git checkout {path}`")
    return content


class StrictLoader(yaml.SafeLoader):
    """PyYAML's, but 1e-5 is a number, as to DVC. Refuses what DVC reads otherwise: a duplicate key, 010, 1:30."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key is a name, not a list or a mapping (line {line})")
            if key_node.value in seen:
                raise yaml.YAMLError(f"the key {key_node.value} occurs twice (line {line}): delete one")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag in NUMBERS and READ_OTHERWISE.match(node.value):
            raise yaml.YAMLError(
                f"{node.value} (line {node.start_mark.line + 1}) is not the same number to PyYAML and to DVC: "
                "write it in decimal, without a leading 0"
            )
        return super().construct_object(node, deep)


StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", ALSO_NUMBERS, list("-+0123456789"))
