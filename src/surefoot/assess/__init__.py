"""Know a model: how accurate it is, where, and how sure that is."""
