"""Why a detector gave its score: which part of the picture it rests on."""
