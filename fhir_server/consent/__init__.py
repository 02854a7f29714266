"""WHAT MAY be seen: policy files, labelling of resources, visibility classes, decisions and their explanation."""
