"""The paper's tables and figures, on data whose true labels are known."""
