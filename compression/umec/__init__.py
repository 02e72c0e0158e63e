"""UMEC: a DLRM under a resource constraint (Shen et al., ICLR 2021)."""
