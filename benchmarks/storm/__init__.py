"""Kills, changed settings and damage, many at a time: is finished work ever lost, or a result wrong without a word?"""
