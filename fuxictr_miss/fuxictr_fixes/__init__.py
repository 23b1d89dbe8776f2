"""What FuxiCTR 2.3.10 gets wrong and we mend from outside, one file each.

Each file begins with the fault and with the change of FuxiCTR that makes the file obsolete.
"""
