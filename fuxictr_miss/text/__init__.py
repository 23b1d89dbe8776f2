"""Raw text as rows and values, alike in preprocessing, encoding and scoring."""
