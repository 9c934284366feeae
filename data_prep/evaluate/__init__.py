"""`asccl evaluate`: videos, sound and landmarks in; scores of manipulated clips and a report out."""
