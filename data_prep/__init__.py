"""Videos and sound: decoded, paired and prepared; heads fitted, drawn and edited; faces manipulated and scored."""
