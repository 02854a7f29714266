"""The consent policy: policy files, labeling of resources, relationships of persons to patients, and decisions (docs/policy.md)."""
