"""Operations with a plain definition and faster versions beside it; one operation a file."""
