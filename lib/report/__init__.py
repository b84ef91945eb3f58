"""What the report says beside Figure 4 and Table 1, and the parts that all of it is made of."""
