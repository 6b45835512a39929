"""Tables, figures and the report: what a reader sees. The only room that draws."""
