"""How far each batch is from the rows that the champion was fitted on."""
