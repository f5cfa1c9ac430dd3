"""A model's graphs: its folder, the roles and shapes they have, what is compiled from them and how that is judged."""
