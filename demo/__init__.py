"""The bundled demo model: how its speech is made, how it is trained, exported and checked."""
